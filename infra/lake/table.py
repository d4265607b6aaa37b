"""A use case's Delta table, partitioned by `_bucket`, a stable hash of the partition's canonical name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from infra.lake.counts import COUNTED, PARTITION_COLUMNS, count_files, count_rows
from infra.lake.location import Kept, Location, storage_errors
from infra.lake.retention import History
from infra.lake.snapshot import BUCKET_FIELD, CONFIGURATION, DataFile, Snapshot, file_schema
from infra.lake.staging import UploadStaging
from infra.lake.writing import FilesWriter
from tasks.domain.errors import Busy, StorageUnavailable
from tasks.domain.retention import Removed, gone_version
from tasks.domain.run import Upload
from tasks.domain.use_case import UseCase

NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
"""What pandas has no missing values of: it would make floats of integers, which rounds large ones, and objects of
booleans."""


class UseCaseTable:
    """Implements `tasks.ports.Table`. Holds no connection between calls, and pickles. A version never changes, so what
    it consists of is remembered: every batch of a run asks for it.

    Args:
        location: folder of the Delta table.
        use_case: gives the columns, the row key and the partition keys.
        scratch: local folder under which uploads are staged; each in a folder of its own.
        threads: buckets that are merged or counted at once.
    """

    def __init__(self, location: Location, use_case: UseCase, scratch: Path, threads: int = 1) -> None:
        self.location, self.use_case, self._scratch, self.threads = location, use_case, scratch, threads
        self._forget()

    def _forget(self) -> None:
        self._files: dict[int, list[DataFile]] = {}
        self._counts: dict[tuple[int, int | None], pd.DataFrame] = {}
        self._kept: Kept[Any] = Kept(self.location, Location.arrow)

    def __getstate__(self) -> dict[str, object]:
        kept = ("location", "use_case", "_scratch", "threads")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _opened(self, files: Sequence[DataFile]) -> Any:
        """The filesystem of the table, to read these files from. Raises `Permanent` where one of them is a link."""
        for file in files:
            self.location.check_file(file.path)
        return self._kept.current()

    def snapshot(self, version: int | None = None) -> Snapshot | None:
        """A version, by default the latest; None before the first upload."""
        from deltalake.exceptions import TableNotFoundError

        with storage_errors(self.location.url):
            try:
                return Snapshot(self.location, version)
            except TableNotFoundError:
                return None

    def _files_at(self, version: int) -> list[DataFile]:
        """The files of a version; none where there is no table. Raises `NotFound` for one that is gone."""
        if version not in self._files:
            try:
                snapshot = self.snapshot(version)
            except StorageUnavailable:  # also what remains of a log can be read no more
                self._check_kept(version)
                raise
            if snapshot is None:
                self._check_kept(version)
                return []
            self._files[version] = snapshot.files
        return self._files[version]

    def _check_kept(self, version: int) -> None:
        if (oldest := self.oldest()) is not None and version < oldest:
            raise gone_version(self.use_case.id, version, oldest)

    def oldest(self) -> int | None:
        """The oldest version that can still be read, or None before the first upload."""
        return History(self.location).oldest

    def version_at(self, moment: datetime) -> int | None:
        """The version that was current at that moment, or the oldest if all are younger; None before the first."""
        return History(self.location).at(moment)

    def merged_in(self, upload_id: str) -> int | None:
        """The version that an upload's merge made; None if it was not merged."""
        snapshot = self.snapshot()
        return snapshot.committed(upload_id) if snapshot else None

    def forget(self, before: int, dry_run: bool) -> list[Removed]:
        """Removes for good what only versions before that one need. Nobody may write meanwhile."""
        self._forget()
        return History(self.location).forget(before, lambda _: False, "dataset", dry_run)

    def version(self) -> int | None:
        """The latest version, or None before the first upload."""
        snapshot = self.snapshot()
        return snapshot.version if snapshot else None

    def stage(self, upload: Upload, measured: Iterable[int] = ()) -> UploadStaging:
        """A fresh staging area for this upload; whatever an earlier attempt left there is dropped. `measured` are the
        numbers of earlier actuals: a target that one of them brought is not new when it comes again."""
        return UploadStaging(self, upload, self._scratch / f"staging-{upload.upload_id}", measured)

    def read_file(self, file: DataFile, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of one data file in the file's order; a column that the file is too old to have is null."""
        schema = file_schema(self.use_case)
        names = list(columns) if columns is not None else schema.names
        with storage_errors(file.path), self._opened([file]).open_input_file(file.path) as source:
            found = pq.ParquetFile(source)
            present = set(found.schema_arrow.names)
            table = found.read(columns=[name for name in names if name in present])
        for name in names:
            if name not in present:
                table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
        return table.select(names).cast(pa.schema([schema.field(name) for name in names]))

    def commit(
        self,
        base: Snapshot | None,
        buckets: int,
        writer: FilesWriter,
        upload: Upload,
        counts: Mapping[str, str],
    ) -> int:
        """Makes a merge visible on top of the version it was computed from; returns the new version. Raises `Busy`."""
        from deltalake import CommitProperties, Schema, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import create_table_with_add_actions

        version = base.version + 1 if base else 0
        properties = CommitProperties(
            custom_metadata={"upload_id": upload.upload_id, **counts},
            max_commit_retries=0,
            app_transactions=[Transaction(upload.upload_id, version)],
        )
        schema = Schema.from_arrow(file_schema(self.use_case).append(BUCKET_FIELD))
        with storage_errors(self.location.url):
            try:
                if base is None:
                    self.location.make()
                    create_table_with_add_actions(
                        self.location.url,
                        schema,
                        writer.added,
                        mode="error",
                        partition_by=["_bucket"],
                        description=json.dumps({"buckets": buckets}),
                        configuration=CONFIGURATION,
                        storage_options=self.location.delta_options(),
                        commit_properties=properties,
                    )
                else:
                    base = base.renewed()
                    known = {field.name for field in base.delta.schema().fields}
                    if new := [field for field in schema.fields if field.name not in known]:
                        base.delta.alter.add_columns(new)  # the contract grew; this commit has no rows
                        return self._recommit(base, buckets, writer, upload, counts)
                    actions = [*writer.added, *writer.removed.values()]
                    base.delta.create_write_transaction(
                        actions,
                        mode="append",
                        schema=schema,
                        partition_by=["_bucket"],
                        commit_properties=properties,
                    )
            except CommitFailedError as error:
                raise Busy(
                    "another merge changed the table in the meantime",
                    where=self.location.url,
                    hint="run again: nothing of this upload was published",
                ) from error
        return version

    def _recommit(
        self, base: Snapshot, buckets: int, writer: FilesWriter, upload: Upload, counts: Mapping[str, str]
    ) -> int:
        grown = self.snapshot(base.version + 1)
        return self.commit(grown, buckets, writer, upload, counts)

    def partitions(self, version: int, upload_seq: int | None = None) -> pd.DataFrame:
        """One row per partition, sorted by (bucket, partition): `partition`, `bucket`, `rows`, `labelled` (rows with a
        target), `open` (rows without), `last_upload`, `last_labelled` (highest `_upload`, `_labelled` of its rows; 0 if
        none). With `upload_seq`, only rows that this upload last wrote are counted."""
        if (known := self._counts.get((version, upload_seq))) is not None:
            return known.copy()
        buckets: dict[int, list[DataFile]] = {}
        for file in self._files_at(version):
            if upload_seq is None or file.upload_min <= upload_seq <= file.upload_max:
                buckets.setdefault(file.bucket, []).append(file)
        with ThreadPoolExecutor(self.threads) as pool:
            found = list(pool.map(lambda bucket: self._count(bucket, buckets[bucket], upload_seq), buckets))
        if not found:
            kinds = {name: "str" if name == "partition" else "int64" for name in PARTITION_COLUMNS}
            return pd.DataFrame(columns=PARTITION_COLUMNS).astype(kinds)
        frame = pd.concat([part for part in found if len(part)] or found[:1])
        counts = frame.sort_values(["bucket", "partition"], ignore_index=True)
        self._counts[version, upload_seq] = counts
        return counts.copy()

    def _count(self, bucket: int, files: Sequence[DataFile], upload_seq: int | None) -> pd.DataFrame:
        if upload_seq is not None:
            return count_rows(self._scan(files, COUNTED, self._filter(upload_seq=upload_seq)), bucket)
        return count_files(self.location.url, files, lambda file: self.read_file(file, COUNTED))

    def read(
        self,
        version: int,
        bucket: int,
        partitions: Sequence[str] | None = None,
        *,
        labelled: bool | None = None,
        upload_seq: int | None = None,
    ) -> pd.DataFrame:
        """Rows of one bucket at a version, all columns, in no particular order; filters narrow them down. Dates are
        datetime64, timestamps datetime64 in UTC; integers and booleans with nulls are Int64 and boolean, so that a
        value, and its hash, is the same whatever other rows are read with it."""
        files = [file for file in self._files_at(version) if file.bucket == bucket]
        if partitions is not None:
            files = [file for file in files if file.may_hold(partitions)]
        if upload_seq is not None:
            files = [file for file in files if file.upload_min <= upload_seq <= file.upload_max]
        rows = self._scan(files, None, self._filter(partitions, labelled, upload_seq))
        gaps = [name for name in self.use_case.contract.stored if rows[name].null_count and rows[name].type in NULLABLE]
        nullable = {name: rows[name].to_pandas(types_mapper=NULLABLE.get) for name in gaps}
        columns = rows.column_names
        frame: pd.DataFrame = rows.drop_columns(gaps).to_pandas(date_as_object=False, self_destruct=True)
        frame = frame.assign(**nullable)[columns] if gaps else frame
        return frame.assign(_bucket=pd.Series(bucket, index=frame.index, dtype="int32"))

    @staticmethod
    def _filter(
        partitions: Sequence[str] | None = None, labelled: bool | None = None, upload_seq: int | None = None
    ) -> pc.Expression | None:
        conditions = []
        if partitions is not None:
            conditions.append(pc.field("_partition").isin(list(partitions)))
        if labelled is not None:
            conditions.append(pc.field("_labelled").is_valid() if labelled else ~pc.field("_labelled").is_valid())
        if upload_seq is not None:
            conditions.append(pc.field("_upload") == upload_seq)
        combined: pc.Expression | None = None
        for condition in conditions:
            combined = condition if combined is None else combined & condition
        return combined

    def _scan(self, files: Sequence[DataFile], columns: list[str] | None, chosen: pc.Expression | None) -> pa.Table:
        schema = file_schema(self.use_case)
        if not files:
            return schema.empty_table().select(columns or schema.names)
        with storage_errors(self.location.url):
            opened = self._opened(files)
            data = pads.dataset([file.path for file in files], schema=schema, format="parquet", filesystem=opened)
            return data.to_table(columns=columns, filter=chosen)
