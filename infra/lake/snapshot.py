"""One version of a use case's Delta table: its schema, its buckets, its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from infra.lake.location import Location
from infra.lake.paths import own_data_file
from tasks.domain.use_case import UseCase
from tasks.ports import ARROW_TYPES

BUCKET_FIELD = pa.field("_bucket", pa.int32())

CONFIGURATION = {"delta.logRetentionDuration": "interval 36500 days"}
"""Old versions reproduce old models, so the log keeps them until someone vacuums on purpose."""


def file_schema(use_case: UseCase) -> pa.Schema:
    """Columns of a data file; the table has `_bucket` besides, which is in the path."""
    columns = [pa.field(name, ARROW_TYPES[column.type]) for name, column in use_case.contract.stored.items()]
    own = [("_partition", pa.string()), ("_upload", pa.int64()), ("_labelled", pa.int64())]
    return pa.schema([*columns, *(pa.field(name, kind) for name, kind in own)])


@dataclass(frozen=True)
class DataFile:
    """One Parquet file: rows of one bucket, sorted by partition, from `first` to `last`."""

    path: str
    bucket: int
    rows: int
    size_bytes: int
    first: str
    last: str
    upload_min: int
    upload_max: int

    def may_hold(self, partitions: Sequence[str]) -> bool:
        """Whether a row of these partitions can be in it."""
        return any(self.first <= name <= self.last for name in partitions)


class Snapshot:
    """A version of the table, opened. Raises `deltalake.exceptions.TableNotFoundError` where there is none."""

    def __init__(self, location: Location, version: int | None = None) -> None:
        from deltalake import DeltaTable

        location.check_table()
        self._location, self._credentials = location, location.credentials()
        self.delta: Any = DeltaTable(location.url, version=version, storage_options=location.delta_options())
        self.version: int = self.delta.version()
        self.buckets: int = json.loads(self.delta.metadata().description)["buckets"]

    def renewed(self) -> Snapshot:
        """The same version for as long as credentials last that were not renewed; else opened again, to be written."""
        fresh = self._location.credentials() == self._credentials
        return self if fresh else Snapshot(self._location, self.version)

    def committed(self, upload_id: str) -> int | None:
        """The version that this upload's merge made, if it was merged."""
        version: int | None = self.delta.transaction_version(upload_id)
        return version

    def commit_info(self, version: int) -> dict[str, Any]:
        """What was recorded with a commit."""
        entries: list[dict[str, Any]] = self.delta.history(self.version - version + 1)
        return next(entry for entry in entries if entry["version"] == version)

    @cached_property
    def files(self) -> list[DataFile]:
        """All data files of this version, sorted by bucket and partition."""
        actions = pa.table(self.delta.get_add_actions(flatten=True))
        if not len(actions):
            return []
        names = {
            "path": "path", "bucket": "partition._bucket", "rows": "num_records", "size_bytes": "size_bytes",
            "first": "min._partition", "last": "max._partition",
            "upload_min": "min._upload", "upload_max": "max._upload",
        }  # fmt: skip
        columns = {field: actions[column].to_pylist() for field, column in names.items()}
        for path in columns["path"]:
            own_data_file(path)
        files = [DataFile(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        return sorted(files, key=lambda file: (file.bucket, file.first, file.path))
