"""Writes the data files of a merge: sorted by partition, at most 65,536 rows each, with statistics that prune them."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from deltalake.transaction import AddAction, RemoveAction

from infra.lake.location import Kept, Location, storage_errors
from infra.lake.parquet import ParquetFiles
from infra.lake.snapshot import DataFile, Snapshot

FILE_ROWS = 65_536
GROUP_ROWS = 8_192  # a batch reads a few partitions, and a group is decoded whole
SORT_ROWS = 1_000_000
"""Rows that are sorted together; more rows of one bucket make several sorted runs."""

SMALL_ROWS, SMALL_FILES = 16_384, 16
"""A bucket with more than 16 files under 16,384 rows has them rewritten as one: daily uploads do not pile up files."""


class FilesWriter:
    """Collects what one commit adds and removes. File names carry a random part: a second attempt never overwrites a
    file that a reader, or the log, may know."""

    def __init__(self, location: Location, schema: pa.Schema, upload_id: str) -> None:
        self._location, self._schema, self._upload_id = location, schema, upload_id
        self._prefix = f"{upload_id}-{uuid.uuid4().hex[:8]}"
        self._kept: Kept[pafs.FileSystem] = Kept(location, Location.arrow)
        self._files = ParquetFiles(location, self._kept)
        self.added: list[AddAction] = []
        self.removed: dict[str, RemoveAction] = {}
        self._numbers = itertools.count()  # threads write different buckets at once

    @property
    def _fs(self) -> pafs.FileSystem:
        return self._kept.current()

    def drop_leftovers(self) -> None:
        """Removes what killed attempts of this upload have written. It was never committed, so nothing refers to it."""
        with storage_errors(self._location.url):
            everything = self._fs.get_file_info(pafs.FileSelector("", recursive=True, allow_not_found=True))
            for info in everything:
                if info.base_name.startswith(f"{self._upload_id}-"):
                    self._location.check_file(info.path)
                    self._fs.delete_file(info.path)

    def remove(self, file: DataFile) -> None:
        """Takes a file out of the table."""
        self.removed[file.path] = RemoveAction(
            path=file.path,
            data_change=True,
            deletion_timestamp=int(time.time() * 1000),
            size=file.size_bytes,
            partition_values={"_bucket": str(file.bucket)},
        )

    def compact(self, base: Snapshot, bucket: int, read: Callable[[DataFile], pa.Table]) -> list[pa.Table]:
        """Takes a bucket's small files out and returns their rows, if there are too many of them."""
        small = [
            file
            for file in base.files
            if file.bucket == bucket and file.rows < SMALL_ROWS and file.path not in self.removed
        ]
        if len(small) <= SMALL_FILES:
            return []
        for file in small:
            self.remove(file)
        return [read(file) for file in small]

    @staticmethod
    def parts(positions: np.ndarray) -> Iterator[np.ndarray]:
        """Positions in runs that are sorted, and held in memory, together."""
        for start in range(0, len(positions), SORT_ROWS):
            yield positions[start : start + SORT_ROWS]

    def write(self, bucket: int, tables: Sequence[pa.Table]) -> None:
        """Writes rows of one bucket; empty tables leave nothing."""
        run: list[pa.Table] = []
        for table in tables:
            if run and sum(map(len, run)) + len(table) > SORT_ROWS:
                self._write_run(bucket, pa.concat_tables(run))
                run = []
            run.append(table)
        if run:
            self._write_run(bucket, pa.concat_tables(run))

    def _write_run(self, bucket: int, rows: pa.Table) -> None:
        if not len(rows):
            return
        coded = rows["_partition"].combine_chunks().dictionary_encode()
        names = coded.dictionary
        order = pc.sort_indices(names).to_numpy()
        rank = np.empty(len(names), dtype=np.int32)
        rank[order] = np.arange(len(names), dtype=np.int32)
        rows = rows.take(pa.array(np.argsort(rank[coded.indices.to_numpy()], kind="stable")))
        for start in range(0, len(rows), FILE_ROWS):
            self._write_file(bucket, rows.slice(start, FILE_ROWS))

    def _write_file(self, bucket: int, rows: pa.Table) -> None:
        folder = f"_bucket={bucket}"
        name = f"{self._prefix}-{next(self._numbers):05d}.parquet"
        path = f"{folder}/{name}"
        texts = [field.name for field in self._schema if pa.types.is_string(field.type)]
        with storage_errors(path):
            # Dictionaries of numbers cost more time than they save; text and the two counters repeat a lot.
            size = self._files.write(
                folder,
                name,
                rows,
                compression="zstd",
                compression_level=1,
                use_dictionary=[*texts, "_upload", "_labelled"],
                row_group_size=GROUP_ROWS,
                write_statistics=["_partition", "_upload", "_labelled"],
            )
        uploads = pc.min_max(rows["_upload"]).as_py()
        # No minima and maxima of the tenant's own columns: the log outlives what is erased from the table.
        statistics = {
            "numRecords": len(rows),
            "minValues": {"_partition": rows["_partition"][0].as_py(), "_upload": uploads["min"]},
            "maxValues": {"_partition": rows["_partition"][-1].as_py(), "_upload": uploads["max"]},
            "nullCount": {"_partition": 0, "_upload": 0},
        }
        self.added.append(
            AddAction(path, size, {"_bucket": str(bucket)}, int(time.time() * 1000), True, json.dumps(statistics))
        )
