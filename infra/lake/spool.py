"""Rows on their way into a table, on local disk, grouped by bucket: memory stays bounded whatever the file's size.

Arrow streams and not Parquet: they are written without encoding and read back through a memory map, so that a bucket
is paged in by the operating system when it is its turn.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from infra.lake.location import storage_errors


class Spool:
    """Arrow tables of one schema, appended per bucket, then read per bucket."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema
        self._writers: dict[int, tuple[pa.OSFile, pa.RecordBatchStreamWriter]] = {}
        self.rows: dict[int, int] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def append(self, bucket: int, table: pa.Table) -> None:
        """Adds rows to a bucket."""
        with storage_errors("staging area"):
            if bucket not in self._writers:
                file = pa.OSFile(str(self._path(bucket)), "wb")
                self._writers[bucket] = file, pa.ipc.new_stream(file, self.schema)
                self.rows[bucket] = 0
            self._writers[bucket][1].write_table(table)
            self.rows[bucket] += len(table)

    def finish(self) -> None:
        """Completes the files; nothing can be appended afterwards."""
        with storage_errors("staging area"):
            for file, writer in self._writers.values():
                writer.close()
                file.close()
        self._writers = {}

    def read(self, bucket: int) -> pa.Table:
        """A bucket's rows, memory-mapped."""
        with pa.memory_map(str(self._path(bucket))) as source:
            return pa.ipc.open_stream(source).read_all()

    def buckets(self) -> Iterator[int]:
        """Buckets that have rows, in order."""
        return iter(sorted(self.rows))

    def discard(self) -> None:
        """Removes the files."""
        self.finish()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, bucket: int) -> Path:
        return self.folder / f"{bucket:03d}.arrow"
