"""A tenant's data on the lake as it is handed over: current rows as Arrow tables, all other files as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from infra.lake.location import Kept, Location, storage_errors
from infra.lake.snapshot import file_schema
from infra.lake.table import UseCaseTable
from infra.lake.transfer import sizes


def current_schema(table: UseCaseTable) -> pa.Schema:
    """Columns of the current rows: those of the contract, and three of the platform's own."""
    return file_schema(table.use_case)


def current_rows(table: UseCaseTable) -> Iterator[pa.Table]:
    """The rows of a use case's table as it is now, file by file."""
    snapshot = table.snapshot()
    for file in snapshot.files if snapshot is not None else ():
        yield table.read_file(file)


def fetch_files(source: Location, name_of: Callable[[str], str | None], folder: Path) -> tuple[int, int]:
    """Copies files below a location into a local folder, under the names that `name_of` gives their paths (None: not
    wanted); returns how many, and their bytes. Of an attempt that was cut off, files of the right size are kept."""
    opened, count, total = Kept(source, Location.filesystem), 0, 0
    with storage_errors(source.url):
        for path, size in sorted(sizes(source).items()):
            name = name_of(path)
            if name is None:
                continue
            target = folder / name
            if not target.is_file() or target.stat().st_size != size:
                source.check_file(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{target.name}.partial")
                opened.current().get_file(f"{source.root}/{path}", str(partial))
                partial.replace(target)
            count, total = count + 1, total + size
    return count, total
