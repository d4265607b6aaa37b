"""Delta tables that lead to the victim's: by a link, and by a log that names its files."""

from __future__ import annotations

import hashlib
import json
import posixpath
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd

from infra.attacks.attempt import Finding
from infra.attacks.canary import CANARY
from infra.attacks.scene import Scene
from infra.attacks.storage.group import GROUP, kept_out
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.lake.table import UseCaseTable
from tasks.domain.names import Purpose
from tasks.domain.run import Upload, UploadStatus


@contextmanager
def _tables(scene: Scene, folder: str) -> Iterator[tuple[Location, Location]]:
    """The place of a table of each, attacker's and victim's, which is gone afterwards."""
    both = [(scene.my_places.lake, scene.mine), (scene.prey_places.lake, scene.prey)]
    try:
        yield tuple(place.child(folder, scene.use_case.id) for place, _ in both)  # type: ignore[misc]  # two of them
    finally:
        for place, _ in both:
            _clear(place, f"{folder}/{scene.use_case.id}")


def _clear(place: Location, path: str) -> None:
    root = place.local
    if root is not None and (root / path).is_symlink():
        (root / path).unlink()
    LakeFiles(place).delete(path)


def _fill(place: Location, marker: str, scene: Scene) -> UseCaseTable:
    """A table with one row, whose key is the marker."""
    table = UseCaseTable(place, scene.use_case, scene.folder)
    staging = table.stage(upload_of(marker))
    row = {"key": [marker], "x": [1.0], "y": [1.0], "_line": [1]}
    staging.append(pd.DataFrame(row))
    staging.merge()
    staging.discard()
    return table


def upload_of(marker: str) -> Upload:
    return Upload(
        upload_id=hashlib.sha256(marker.encode()).hexdigest()[:32],
        use_case=CANARY,
        purpose=Purpose.HISTORY,
        seq=1,
        filename=marker,
        size_bytes=1,
        content_sha256="",
        status=UploadStatus.RECEIVED,
        received_at=datetime.now(UTC),
    )


def _rows(place: Location, scene: Scene) -> object:
    """All that a reader of the table gets, whichever way it asks."""
    table = UseCaseTable(place, scene.use_case, scene.folder)
    version = table.version()
    if version is None:
        return "no table"
    counts = table.partitions(version)
    frames = [table.read(version, bucket) for bucket in sorted(set(counts["bucket"]))]
    return pd.concat(frames).to_string() + counts.to_string()


def _mine(scene: Scene, folder: str) -> Location:
    """The place of the attacker's table with the attacker's own credentials."""
    return scene.attacker.location.child(folder, scene.use_case.id)


@contextmanager
def tables_of_both(scene: Scene) -> Iterator[tuple[UseCaseTable, UseCaseTable]]:
    """A table of each, with one row whose key is its owner's marker."""
    with _tables(scene, "tables") as (mine, theirs):
        yield _fill(mine, scene.mine.marker, scene), _fill(theirs, scene.prey.marker, scene)


Address = Callable[[Location, Location, str], str]
"""Names a file of the second table in the log of the first one."""

FORGED: dict[str, tuple[str, Address]] = {
    "parent": ("by `..`", lambda mine, theirs, path: posixpath.relpath(f"{theirs.root}/{path}", mine.root)),
    "absolute": ("by an absolute path", lambda _, theirs, path: f"/{theirs.root.lstrip('/')}/{path}"),
    "url": ("by its URL", lambda _, theirs, path: f"{theirs.url}/{path}"),
    "percent": (
        "by `..` in percent codes",
        lambda mine, theirs, path: posixpath.relpath(f"{theirs.root}/{path}", mine.root).replace("..", "%2e%2e"),
    ),
}


def _forged_log(address: Address, scene: Scene) -> Finding:
    with _tables(scene, "tables") as (mine, theirs):
        _fill(mine, scene.mine.marker, scene)
        file = _fill(theirs, scene.prey.marker, scene)._files_at(0)[0]  # no port tells of files
        log = LakeFiles(mine)
        lines = log.read("_delta_log/00000000000000000000.json").splitlines()
        action: dict[str, Any] = next(json.loads(line)["add"] for line in lines if b'"add"' in line)
        bounds = {
            "minValues": {"_partition": file.first, "_upload": file.upload_min},
            "maxValues": {"_partition": file.last, "_upload": file.upload_max},
        }
        forged = action | {
            "path": address(mine, theirs, file.path),
            "size": file.size_bytes,
            "partitionValues": {"_bucket": str(file.bucket)},
            "stats": json.dumps(json.loads(action["stats"]) | bounds),
        }
        log.write("_delta_log/00000000000000000001.json", json.dumps({"add": forged}).encode() + b"\n")
        return kept_out(scene, lambda: _rows(_mine(scene, "tables"), scene))


for _name, (_how, _address) in FORGED.items():
    GROUP.add(
        f"log-{_name}",
        f"writes a log for its own table that names the victim's file {_how}, and has the table read",
        partial(_forged_log, _address),
    )


def _linked(part: str, scene: Scene) -> Finding:
    """A part of the attacker's table is a link to that of the victim's."""
    with _tables(scene, "tables") as (mine, theirs):
        _fill(theirs, scene.prey.marker, scene)
        here, there = mine.local, theirs.local
        assert here is not None
        assert there is not None
        if part == "table":
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(there)
        else:
            shutil.copytree(there, here)
            for path in here.glob(part):
                target = there / path.relative_to(here)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                path.symlink_to(target)
        try:
            return kept_out(scene, lambda: _rows(_mine(scene, "tables"), scene))
        finally:
            if part != "table":
                shutil.rmtree(here)


for _name, _part, _what in (
    ("table", "table", "has its own table be a link to the victim's"),
    ("log", "_delta_log", "has the log of its table be a link to the victim's"),
    ("log-file", "_delta_log/*.json", "has a file of its table's log be a link to the victim's"),
    ("data-file", "_bucket=*/*.parquet", "has a data file of its table be a link to the victim's"),
    ("data-folder", "_bucket=*", "has a folder of its table be a link to the victim's"),
):
    GROUP.add(f"link-to-{_name}", _what, partial(_linked, _part), on="local")
