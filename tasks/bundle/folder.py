"""A bundle as a whole: made, sealed with digests, and checked against them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.bundle.index import Entry, everyone_entry, fallback_entry, own_entry, write_index
from tasks.bundle.parts import fresh, gather, place_part, scan
from tasks.domain.errors import NotFound, Tampered
from tasks.domain.names import TENANT_WIDE
from tasks.domain.use_case import UseCase

FORMAT = 1

HASHED_AT_ONCE = 2
"""Files: hashing leaves the interpreter free."""


def assemble(
    folder: Path,
    parts: Iterable[Path],
    *,
    use_case: UseCase,
    tenant: str,
    unanswered: Iterable[str] = (),
    earlier: tuple[Path, Iterable[str]] | None = None,
    threads: int = 1,
) -> str:
    """Makes a training run's bundle in `folder` and returns its digest; whatever was in the folder is
    replaced.

    `parts` are files of `write_part`, linked or copied in; one of them holds the row of partition "*".
    `unanswered` are partitions without a model of this run (rejected, failed, left): a fallback answers for them.
    `earlier` is an older bundle and the partitions whose rows are taken over from there, bytes and source run
    as they are. Raises `NotFound` when "*" or a reused partition has no row.
    """
    fresh(folder)
    for part in parts:
        place_part(part, folder)
    if earlier is not None:
        source, reused = earlier
        gather(source, folder, set(reused), threads)
    places = list(scan(folder))
    tenant_wide = next((row for row in places if row.partition == TENANT_WIDE), None)
    if tenant_wide is None:
        raise NotFound(
            "no part of the bundle has the tenant-wide row",
            expected=f"partition {TENANT_WIDE!r} in one of the parts",
            where=str(folder),
            hint="write it with write_part, with estimator naive where there is no tenant-wide model",
        )
    entries = [everyone_entry(tenant_wide)]
    entries += [own_entry(row, tenant_wide) for row in places if row.partition != TENANT_WIDE]
    entries += [fallback_entry(partition, tenant_wide) for partition in unanswered]
    (folder / "bundle.json").write_text(describe(use_case, tenant))
    return seal(folder, entries)


def describe(use_case: UseCase, tenant: str) -> str:
    """The text of bundle.json."""
    spec = use_case.model_dump(mode="json", by_alias=True)
    contract = use_case.contract
    facts = {
        "format": FORMAT,
        "tenant": tenant,
        "use_case": use_case.id,
        "kind": use_case.kind.value,
        "classes": list(use_case.classes),
        "partition_by": list(use_case.partition_by),
        "row_key": list(contract.row_key),
        "baseline": use_case.baseline,
        "derived": spec["derived"],
        "features": spec["features"],
        "columns": {name: column.type.value for name, column in contract.columns.items()},
    }
    return json.dumps(facts, indent=1) + "\n"


def unlike(one: Path, other: Path) -> list[str]:
    """What keeps two bundles' models from serving in one bundle: the facts of bundle.json that differ."""
    return differing(*(json.loads((folder / "bundle.json").read_text()) for folder in (one, other)))


def differing(facts: Mapping[str, object], others: Mapping[str, object]) -> list[str]:
    """`unlike`, of what is in the two files."""
    shape = ("format", "kind", "classes", "partition_by", "baseline", "derived", "features")
    return [name for name in shape if facts[name] != others[name]]


def seal(folder: Path, entries: Iterable[Entry]) -> str:
    """Writes the index and then the manifest; returns the digest."""
    write_index(folder, entries)
    digests = _digests(folder)
    text = json.dumps({"files": digests}, indent=1, sort_keys=True) + "\n"
    partial = folder / ".manifest.json.partial"
    partial.write_text(text)
    os.replace(partial, folder / "manifest.json")
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(folder: Path) -> str:
    """The digest of a sealed bundle: sha256 of its manifest."""
    return _sha256(folder / "manifest.json")


def verify(folder: Path, digest: str | None = None) -> str:
    """Checks every file of a bundle against its manifest, and the manifest against `digest` where that is
    known; returns the digest. Raises `Tampered`, naming the first file that differs, is missing, or does not
    belong there."""
    try:
        text = (folder / "manifest.json").read_bytes()
        listed: dict[str, str] = json.loads(text)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _tampered(folder, "manifest.json", "a readable manifest", str(error)) from None
    found = hashlib.sha256(text).hexdigest()
    if digest is not None and found != digest:
        raise _tampered(folder, "manifest.json", f"sha256 {digest}", found)
    present = _digests(folder)
    for name in sorted(listed.keys() | present.keys()):
        if name not in listed:
            raise _tampered(folder, name, "only files that the manifest lists", "an unlisted file")
        if name not in present:
            raise _tampered(folder, name, f"sha256 {listed[name]}", "no such file")
        if present[name] != listed[name]:
            raise _tampered(folder, name, f"sha256 {listed[name]}", present[name])
    return found


def _digests(folder: Path) -> dict[str, str]:
    """Digests of all files but the manifest, by their path within the folder."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and path.name != "manifest.json")
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return dict(zip((path.relative_to(folder).as_posix() for path in files), pool.map(_sha256, files), strict=True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tampered(folder: Path, name: str, expected: str, found: str) -> Tampered:
    return Tampered(
        f"the bundle is not what was written: {name}",
        expected=expected,
        found=found,
        where=str(folder / name),
        hint="restore the folder, or roll back to another release",
    )
