"""Part files of a bundle: one row per partition with its model (`tasks.scorer.BUNDLE_SCHEMA`), in small row
groups.

Whatever moves models moves them row group by row group, so memory stays bounded however many models there
are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cachetools import LRUCache, cached

from tasks.domain.errors import NotFound
from tasks.domain.use_case import Estimator
from tasks.scorer import BUNDLE_SCHEMA

ROW_GROUP_ROWS = 8

REMEMBERED_FILES = 1_000

# On LightGBM's text, level 1 takes half the time of level 3 for the same size.
_ZSTD = {"compression": "zstd", "compression_level": 1, "use_dictionary": False, "write_statistics": False}


ESTIMATORS = {estimator.value: estimator for estimator in Estimator}


class Place(NamedTuple):
    """Where a partition's row is, and all of it but the model."""

    partition: str
    file: str
    row_group: int
    row: int
    estimator: Estimator
    naive: list[float]
    source_run: int
    metric: float | None
    naive_metric: float | None


def write_part(path: Path, models: Sequence[Mapping[str, object]]) -> None:
    """Writes the bundle rows of one batch; the file appears whole or not at all. Equal rows give equal
    bytes."""
    table = pa.Table.from_pylist([dict(model) for model in models], schema=BUNDLE_SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table.sort_by("partition"), partial, row_group_size=ROW_GROUP_ROWS, **_ZSTD)
    os.replace(partial, path)


def read_part(path: Path) -> list[dict[str, object]]:
    """The rows of one part file, models included."""
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def read_model(folder: Path, partition: str) -> dict[str, object]:
    """One partition's bundle row, of which only its row group is read. Raises `NotFound` where it has
    none."""
    for row in scan(folder):
        if row.partition == partition:
            group = pq.ParquetFile(folder / row.file).read_row_group(row.row_group)
            found: dict[str, object] = group.slice(row.row, 1).to_pylist()[0]
            return found
    raise NotFound(f"the bundle has no model of partition {partition!r}", where=str(folder))


def scan(folder: Path) -> Iterator[Place]:
    """All rows of the bundle's parts but for their models, which are not read; file by file, in the order of
    names."""
    for path in sorted((folder / "models").glob("*.parquet")):
        for place in _places(path):
            yield place._replace(file=f"models/{path.name}")


_known: LRUCache[tuple[int, int, int, int], tuple[Place, ...]] = LRUCache(maxsize=REMEMBERED_FILES)
_known_lock = Lock()


def _identity(path: Path) -> tuple[int, int, int, int]:
    """What a file is known by, whatever its names: parts are linked into one bundle after the other."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@cached(_known, key=_identity, lock=_known_lock)
def _places(path: Path) -> tuple[Place, ...]:
    """The rows of a part; `file` is its name when it was first read."""
    columns = ["partition", "estimator", "naive", "source_run", "metric", "naive_metric"]
    with pq.ParquetFile(path) as part:
        sizes = [part.metadata.row_group(group).num_rows for group in range(part.num_row_groups)]
        places = ((group, number) for group, size in enumerate(sizes) for number in range(size))
        rows = part.read(columns, use_threads=False).to_pylist()
    return tuple(
        Place(file=path.name, row_group=group, row=number, **{**row, "estimator": ESTIMATORS[row["estimator"]]})
        for (group, number), row in zip(places, rows, strict=True)
    )


def gather(source: Path, into: Path, partitions: set[str], threads: int = 1) -> None:
    """Copies the rows of these partitions from one bundle's parts into another's `models/`: files of which
    every row is wanted as they are, of others only the wanted rows. Raises `NotFound` where a partition has
    no row in `source`."""
    missing = set(partitions)
    copies: list[tuple[Path, Path, set[str] | None]] = []
    for path in sorted((source / "models").glob("*.parquet")):
        names = [place.partition for place in _places(path)]
        if wanted := partitions.intersection(names):
            missing -= wanted
            target = _free(into, path.name)
            target.touch()  # the name is taken
            copies.append((path, target, None if len(wanted) == len(names) else wanted))
    if missing:
        raise NotFound(
            f"{len(missing)} partitions have no model in the bundle that they should come from",
            found=f"e.g. {min(missing)}",
            where=str(source),
        )
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_copy, *zip(*copies, strict=True))) if copies else None


def _copy(source: Path, target: Path, partitions: set[str] | None) -> None:
    """Copies a part: whole, or only the rows of these partitions."""
    if partitions is None:
        shutil.copyfile(source, target)
        known = _places(source)
        with _known_lock:
            _known[_identity(target)] = known  # the copy need not be read to know what is in it
        return
    wanted = pa.array(sorted(partitions), pa.string())
    with (
        pq.ParquetFile(source) as part,
        pq.ParquetWriter(target, BUNDLE_SCHEMA, **_ZSTD) as writer,
    ):
        for group in range(part.num_row_groups):
            # names first: a group without a wanted row is not decompressed
            mask = pc.is_in(part.read_row_group(group, columns=["partition"])["partition"], value_set=wanted)
            if pc.any(mask).as_py():
                writer.write_table(part.read_row_group(group).filter(mask))


def fresh(folder: Path) -> None:
    """Makes `folder` an empty bundle folder, whatever an earlier attempt left there."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "models").mkdir(parents=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes a file appear at `target`: as a second name of the same bytes where the disk allows it, else as a
    copy. Files of bundles are only ever replaced, never written into, so that the names stay independent."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def place_part(source: Path, folder: Path) -> None:
    """Links or copies a part among the bundle's, under its own name or, where that is taken, one like it."""
    link_or_copy(source, _free(folder, source.name))


def _free(folder: Path, name: str) -> Path:
    """A path in `models/` that is not taken yet: two bundles may have parts of the same name."""
    stem, number, path = Path(name).stem, 0, folder / "models" / name
    while path.exists():
        number += 1
        path = folder / "models" / f"{stem}-{number}.parquet"
    return path
