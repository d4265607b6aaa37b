"""Crafted files: bombs, lies and code, as uploads and as definitions."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.attacks.attempt import Finding, Group, denied, refused, succeeded
from infra.attacks.registry.files import Trap
from infra.attacks.scene import Scene
from infra.definitions import parse
from tasks.domain.errors import InvalidDefinition
from tasks.domain.tenant import Tenant

GROUP = Group("uploads")

MIB = 1 << 20
MAX_MB = 2_000
"""So much memory a hostile file may take before it is refused, that of the libraries included."""

MAX_ROWS = 5_000_000
"""None of these files has so many bytes as this many rows would take."""

ROW = b"isolation,1.0,1.0\n"
HEADER = b"key,x,y\n"

Craft = Callable[[Scene], bytes]


def _zeros(_: Scene) -> bytes:
    """Members of a gzip file may follow one another, so that one is packed and then repeated."""
    return gzip.compress(b"0" * MIB) * 600


def _rows(_: Scene) -> bytes:
    return gzip.compress(HEADER) + gzip.compress(ROW * (MIB // len(ROW))) * 600


def _zstd(_: Scene) -> bytes:
    packed: bytes = pa.compress(HEADER + ROW * (600 * MIB // len(ROW)), "zstd", asbytes=True)
    return packed


def _nested(_: Scene) -> bytes:
    return gzip.compress(gzip.compress(HEADER + ROW * 1000))


def _zip(_: Scene) -> bytes:
    """An archive whose file has a name that leads out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../../../isolation-canary.csv", HEADER + ROW * 1_000_000)
    return buffer.getvalue()


def _parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def _table(rows: int) -> pa.Table:
    texts = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array(["isolation"]))
    ones = pa.repeat(pa.scalar(1.0), rows)
    return pa.table({"key": texts, "x": ones, "y": ones})


def _parquet_rows(_: Scene) -> bytes:
    return _parquet(_table(50_000_000), compression="zstd")


def _parquet_lies(_: Scene) -> bytes:
    """The footer says more rows than there are."""
    whole = _parquet(_table(1000), compression="none", use_dictionary=False)
    size = int.from_bytes(whole[-8:-4], "little")
    footer = whole[-8 - size : -8].replace(b"\xd0\x0f", b"\xd0\x7f")  # 1000, and 8168, as Thrift writes them
    return whole[: -8 - size] + footer + whole[-8:]


def _parquet_footer(_: Scene) -> bytes:
    """A footer that is said to be longer than the file."""
    return _parquet(_table(10))[:-8] + (0x7FFFFFFF).to_bytes(4, "little") + b"PAR1"


def _parquet_noise(_: Scene) -> bytes:
    whole = bytearray(_parquet(_table(1000)))
    for at in range(len(whole) - 200, len(whole) - 8, 3):
        whole[at] ^= 0xFF
    return bytes(whole)


def _parquet_pickle(scene: Scene) -> bytes:
    """An extension type that Arrow once unpickled when it read the schema (CVE-2023-47248)."""
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Trap(scene.folder / "ran")),
    }
    fields = [pa.field("key", pa.string()), pa.field("x", pa.float64(), metadata=metadata), pa.field("y", pa.float64())]
    return _parquet(pa.table([["a"], [1.0], [1.0]], schema=pa.schema(fields)))


def _json_lines(*lines: str) -> bytes:
    return "\n".join(['{"key": "a", "x": 1, "y": 1}', *lines]).encode()


def _wide(_: Scene) -> bytes:
    return ",".join(["key", "x", "y", *(f"c{number}" for number in range(200_000))]).encode() + b"\n" + ROW


def _pickle(scene: Scene) -> bytes:
    return pickle.dumps(Trap(scene.folder / "ran"))


DEEP_LIST = "[" * 100_000 + "]" * 100_000
DEEP_OBJECT = '{"x": ' * 100_000 + "1" + "}" * 100_000

FILES: dict[str, tuple[str, Craft]] = {
    "gzip-zeros": ("600 MB of one character, packed into half a megabyte", _zeros),
    "gzip-rows": ("600 MB of one row, packed into two megabytes", _rows),
    "zstd-rows": ("600 MB of one row, packed into some kilobytes", _zstd),
    "gzip-in-gzip": ("a packed file in a packed file", _nested),
    "zip-path": ("an archive with a path in a file's name", _zip),
    "parquet-rows": ("fifty million equal rows in a small Parquet file", _parquet_rows),
    "parquet-lies": ("a Parquet file that says it has more rows than it has", _parquet_lies),
    "parquet-footer": ("a Parquet file whose footer is said to be longer than itself", _parquet_footer),
    "parquet-noise": ("a Parquet file whose metadata is noise", _parquet_noise),
    "parquet-pickle": ("a Parquet file with a pickle for a type", _parquet_pickle),
    "json-deep": ("lists a hundred thousand deep, as JSON", lambda _: _json_lines(f'{{"key": {DEEP_LIST}}}')),
    "json-deeper": ("objects a hundred thousand deep, as JSON", lambda _: _json_lines(DEEP_OBJECT)),
    "json-number": ("a number of a million digits", lambda _: _json_lines(f'{{"key": "a", "x": {"9" * 1_000_000}}}')),
    "json-instance": ("an object that asks to be an instance", lambda _: _json_lines('{"py/object": "os.system"}')),
    "csv-wide": ("two hundred thousand columns", _wide),
    "csv-line": ("a line without an end", lambda _: HEADER + b"a" * (65 * MIB)),
    "csv-quotes": ("a quote that is never closed", lambda _: HEADER + b'"' + ROW * 5_000_000),
    "csv-nul": ("NUL characters between rows", lambda _: HEADER + ROW * 1000 + b"\0\0\0" + ROW),
    "pickle": ("a pickle", _pickle),
    "utf16": ("half a character of UTF-16", lambda _: b"\xff\xfe" + HEADER.decode().encode("utf-16-le") + b"\xd8"),
    "polyglot": ("the beginning of a Parquet file before a CSV", lambda _: b"PAR1" + HEADER + ROW * 100),
}  # fmt: skip


def _answers(scene: Scene, name: str) -> dict[str, Any]:
    """What the reader in its own process says of a file."""
    reader = scene.kept.get("hostile")
    if reader is None:
        reader = subprocess.Popen(
            [sys.executable, "-m", "flows.attacks.hostile"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        scene.kept["hostile"] = reader
        scene.cleanup.callback(_end, reader)
    assert isinstance(reader, subprocess.Popen)
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(f"{scene.folder / name}\n")
    reader.stdin.flush()
    said: dict[str, Any] = json.loads(reader.stdout.readline())
    return said


def _end(reader: subprocess.Popen[str]) -> None:
    assert reader.stdin is not None
    reader.stdin.close()
    reader.wait(timeout=90)
    assert reader.stdout is not None
    reader.stdout.close()


def _file(name: str, craft: Craft, scene: Scene) -> Finding:
    """Denied when the file is refused in our own words, or read within bounds, and nothing of it was run."""
    ran = scene.folder / "ran"
    ran.unlink(missing_ok=True)
    path = scene.folder / name
    path.write_bytes(craft(scene))
    try:
        said = _answers(scene, name)
    finally:
        size = path.stat().st_size
        path.unlink()
    if ran.exists():
        return succeeded("code in the file was run")
    if "died" in said or "failed" in said:
        return succeeded(f"the reader fell over: {said}")
    if said["peak_mb"] > MAX_MB:
        return succeeded(f"it took {said['peak_mb']} MB: {said}")
    if "refused" not in said and said["rows"] > MAX_ROWS:
        return succeeded(f"{size:,} bytes became {said['rows']:,} rows")
    return denied(f"{size:,} bytes: {said.get('refused') or said}")


for _name, (_what, _craft) in FILES.items():
    GROUP.add(f"file-{_name}", f"uploads {_what}", partial(_file, _name, _craft), once=True)

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

YAML: dict[str, tuple[str, Callable[[Path], str]]] = {
    "run": ("a tag that runs a program", lambda ran: f"id: !!python/object/apply:os.system ['touch {ran}']"),
    "new": ("a tag that makes an instance", lambda ran: f"id: !!python/object/new:pathlib.Path ['{ran}']"),
    "module": ("a tag that imports a module", lambda _: "id: !!python/module:antigravity"),
    "name": ("a tag that names a function", lambda _: "id: !!python/name:os.system"),
    "local": ("a tag of its own", lambda _: "id: !secret victim"),
    "binary": ("a tag that makes bytes of text", lambda _: "id: !!binary aXNvbGF0aW9u"),
    "aliases": ("aliases that describe gigabytes", lambda _: LAUGHS),
    "self": ("an alias that holds itself", lambda _: "a: &a [*a]"),
    "merge": ("a merge of what was named elsewhere", lambda _: "a: &a {id: x}\nb: {<<: *a}"),
    "deep": ("lists a hundred thousand deep", lambda _: "id: " + "[" * 100_000),
    "documents": ("two documents in a file", lambda _: "id: a\n---\nid: b"),
    "twice": ("a field that comes twice", lambda _: "id: mine\nid: victim"),
    "key": ("a field whose name is a list", lambda _: "? [a]\n: b"),
    "number": ("a number of a million digits", lambda _: "id: " + "9" * 1_000_000),
    "control": ("control characters", lambda _: "id: a\x00b\x07"),
    "surrogate": ("half a character", lambda _: 'id: "\\ud800"'),
}  # fmt: skip


def _yaml(text: Callable[[Path], str], scene: Scene) -> Finding:
    ran = scene.folder / "ran"
    ran.unlink(missing_ok=True)
    finding = refused(lambda: parse(Tenant, text(ran).encode(), "isolation-canary.yaml"), InvalidDefinition)
    return succeeded("code in the definition was run") if ran.exists() else finding


for _name, (_what, _text) in YAML.items():
    GROUP.add(f"yaml-{_name}", f"writes a definition with {_what}", partial(_yaml, _text), once=True)

DEFINITIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "encoding": ("an encoding that unpacks what it reads", {"contract": {"encoding": "zlib_codec"}}),
    "escape": ("an encoding that reads escapes", {"contract": {"encoding": "unicode_escape"}}),
    "secret": ("a secret that is a path", {"pull": {"secret": "../victim"}}),
    "code": ("a derivation that is code", {"derived": {"z": {"as": "python", "from": "x", "code": "import os"}}}),
    "column": ("a column whose name ends a text", {"contract": {"columns": {"x'; DROP TABLE a": {"type": "number"}}}}),
    "hidden": ("a column that is ours", {"contract": {"columns": {"_partition": {"type": "string"}}}}),
    "tenant": ("a tenant of its use case", {"tenant": "victim"}),
    "estimator": ("an estimator that is a module", {"estimators": ["os.system"]}),
    "schedule": ("a schedule of every second", {"schedule": "* * * * * *"}),
}  # fmt: skip


def _definition(changes: dict[str, Any], scene: Scene) -> Finding:
    fields = scene.attacker.tenant.model_dump(mode="json", by_alias=True)
    fields["use_cases"] = [_merged(fields["use_cases"][0], changes)]
    text = json.dumps(fields).encode()  # JSON is YAML
    return refused(lambda: parse(Tenant, text, "isolation-canary.yaml"), InvalidDefinition)


def _merged(one: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for name, value in changes.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


for _name, (_what, _changes) in DEFINITIONS.items():
    GROUP.add(f"definition-{_name}", f"declares {_what}", partial(_definition, _changes), once=True)


@GROUP.attack("has a cell's text run as a script in the page that an operator reads", once=True)
def report_script(scene: Scene) -> Finding:
    import pandas as pd

    from infra.attacks.storage.tables import upload_of
    from infra.validation import ExpectationsValidator
    from tasks.domain.use_case import UseCase
    from tasks.ports import UNPARSED

    script = "<script>isolation</script>"
    use_case = UseCase.model_validate(
        {
            "id": "isolation-canary", "kind": "regression", "description": script,
            "contract": {
                "columns": {
                    "key": {"type": "string", "allowed": ["a"]},
                    "x": {"type": "number"},
                    "y": {"type": "number"},
                },
                "row_key": ["key"],
            },
            "partition_by": ["key"], "target": "y", "features": {"numeric": ["x"]},
        }
    )  # fmt: skip
    frame = pd.DataFrame({"key": [script, "a"], "x": [1.0, 1.0], "y": [1.0, 1.0]})
    frame[UNPARSED] = pd.Series([None, None], dtype="str")
    validator = ExpectationsValidator(use_case, upload_of(script), scene.attacker.files)
    validator.check(frame)
    page = validator.report()
    scene.cleanup.callback(scene.attacker.files.delete, page.rsplit("/", 2)[0])
    text = scene.attacker.files.read(page).decode()
    if script in text:
        return succeeded(f"the page holds {script}")
    return denied("the page shows it as text, or not at all")
