"""Data files of Delta tables."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from infra.lake.bucket import Bucket
from infra.lake.location import Kept, Location


class ParquetFiles:
    """Writes them below a place; `opened` is the place's own filesystem. Threads may share it, and it pickles."""

    def __init__(self, location: Location, opened: Kept[pafs.FileSystem]) -> None:
        self._location, self._opened = location, opened
        self._bucket = Bucket(location) if location.bucket is not None else None

    def write(self, folder: str, name: str, table: pa.Table, **options: Any) -> int:
        """Writes a file, with pyarrow's options for it; returns its size in bytes."""
        if self._bucket is None:
            path, files = f"{folder}/{name}", self._opened.current()
            self._location.child(folder).make()
            pq.write_table(table, path, filesystem=files, **options)
            return int(files.get_file_info(path).size)
        # pyarrow's own client cannot tag, and sends a small file in three requests
        encoded = pa.BufferOutputStream()
        pq.write_table(table, encoded, **options)
        data = encoded.getvalue()
        self._bucket.write((folder, name), data.to_pybytes())
        return int(data.size)
