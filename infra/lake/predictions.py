"""The lake table of a use case's predictions: batches write files, one commit publishes them.

Partitioned by `upload_id`, so that replacing an upload's rows is dropping its files and adding others in one
transaction, without reading any.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Container, Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from infra.lake.location import Kept, Location, storage_errors
from infra.lake.parquet import ParquetFiles
from infra.lake.paths import own_data_file
from infra.lake.retention import History
from tasks.domain.errors import Busy
from tasks.domain.retention import Removed
from tasks.domain.run import Batch, Run, Upload
from tasks.domain.use_case import UseCase

DOUBLES = pa.list_(pa.field("element", pa.float64()))

FILE_SCHEMA = pa.schema(
    [
        ("partition", pa.string()),
        ("row_key", pa.string()),
        ("prediction", pa.float64()),
        ("label", pa.string()),
        ("probabilities", DOUBLES),
        ("baseline", DOUBLES),
        ("answer", pa.string()),
        ("fallback", pa.bool_()),
        ("model_run", pa.int64()),
        ("use_case", pa.string()),
        ("run_id", pa.int64()),
        ("release_version", pa.int64()),
        ("scored_at", pa.timestamp("us", "UTC")),
    ]
)
"""`PREDICTION` and what all rows of a run share; `scored_at` is when the run started."""

REPETITIVE = ["partition", "label", "answer", "model_run", "use_case", "run_id", "release_version", "scored_at"]
"""Columns that a dictionary makes small; where almost all values differ, looking for it costs more than it saves."""

TABLE_SCHEMA = FILE_SCHEMA.append(pa.field("upload_id", pa.string()))


class LakePredictions:
    """Implements `tasks.ports.Predictions`. Holds no connection between calls, and pickles."""

    def __init__(self, location: Location, use_case: UseCase) -> None:
        self.location, self._use_case = location, use_case
        self._kept: Kept[Any] = Kept(location, Location.arrow)
        self._files_of_batches = ParquetFiles(location, self._kept)

    @property
    def _fs(self) -> Any:
        return self._kept.current()

    def write(self, run: Run, batch: Batch, rows: pa.Table) -> None:
        """Writes a batch's file; readers do not see it yet. Written again, it replaces itself. `rows` has the columns
        of `PREDICTION` and may have `release_version`."""
        count = len(rows)
        common = {
            "use_case": pa.repeat(self._use_case.id, count),
            "run_id": pa.repeat(pa.scalar(run.run_id, pa.int64()), count),
            "scored_at": pa.repeat(pa.scalar(run.started_at, pa.timestamp("us", "UTC")), count),
            "release_version": pa.repeat(pa.scalar(run.release_version, pa.int64()), count),
        }
        columns = common | {name: rows[name] for name in rows.column_names if name in FILE_SCHEMA.names}
        table = pa.table({name: columns[name] for name in FILE_SCHEMA.names}).cast(FILE_SCHEMA)
        folder, name = _folder(run.upload_id), f"{_prefix(run)}{batch.number:06d}.parquet"
        with storage_errors(f"{folder}/{name}"):
            self._files_of_batches.write(
                folder,
                name,
                table,
                compression="zstd",
                compression_level=1,
                use_dictionary=REPETITIVE,
                write_statistics=["partition"],
            )

    def publish(self, run: Run, upload: Upload) -> None:
        """Makes all files of the run visible in one commit, in place of earlier rows of the same upload. Does nothing
        when this run is already published. Raises `Busy`."""
        from deltalake import CommitProperties, Schema, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction, RemoveAction

        upload_id = upload.upload_id
        table = self._table(create=True)
        if table.transaction_version(f"run-{run.run_id}") is not None:
            return
        now = int(time.time() * 1000)
        values = {"upload_id": upload_id}
        with storage_errors(self.location.url):
            actions: list[AddAction | RemoveAction] = []
            for path, size in self._files(run, upload_id):
                rows = pq.read_metadata(path, filesystem=self._fs).num_rows
                statistics = {
                    "numRecords": rows,
                    "minValues": {"run_id": run.run_id},
                    "maxValues": {"run_id": run.run_id},
                    "nullCount": {"run_id": 0},
                }
                actions.append(AddAction(path, size, values, now, True, json.dumps(statistics)))
            for path, size, earlier, _ in self._published(table):
                if earlier == upload_id:
                    actions.append(RemoveAction(path, True, now, size, {"upload_id": earlier}))
            try:
                table.create_write_transaction(
                    actions,
                    mode="append",
                    schema=Schema.from_arrow(TABLE_SCHEMA),
                    partition_by=["upload_id"],
                    commit_properties=CommitProperties(
                        custom_metadata={"run_id": str(run.run_id)},
                        max_commit_retries=0,
                        app_transactions=[Transaction(f"run-{run.run_id}", table.version() + 1)],
                    ),
                )
            except CommitFailedError as error:
                raise Busy("another run published at the same time", where=self.location.url) from error

    def read(self, partitions: Sequence[str] | None = None) -> pa.Table:
        """Published rows, of some partitions or of all."""
        wanted = None if partitions is None else pads.field("partition").isin(list(partitions))
        return pa.concat_tables([TABLE_SCHEMA.empty_table(), *self.uploads(wanted)])

    def uploads(self, wanted: pc.Expression | None = None) -> Iterator[pa.Table]:
        """Published rows, upload by upload; of all, or of those that meet the condition."""
        table = self._table(create=False)
        paths: dict[str, list[str]] = {}
        for path, _, upload_id, _ in [] if table is None else self._published(table):
            self.location.check_file(path)
            paths.setdefault(upload_id, []).append(path)
        with storage_errors(self.location.url):
            for upload_id, files in paths.items():
                data = pads.dataset(sorted(files), schema=FILE_SCHEMA, format="parquet", filesystem=self._fs)
                rows = data.to_table(filter=wanted)
                yield rows.append_column(TABLE_SCHEMA.field("upload_id"), pa.repeat(upload_id, len(rows)))

    def forget(self, cutoff: datetime, unfinished: Container[int], dry_run: bool) -> list[Removed]:
        """Removes for good what was replaced before the cutoff, and files that no run has published; those of the
        `unfinished` runs stay. Nobody may write meanwhile."""
        history = History(self.location)
        if (current := history.at(cutoff)) is None:
            return []

        def may_be_published(path: str) -> bool:
            found = _OF_RUN.match(path.rpartition("/")[2])
            return found is not None and int(found[1]) in unfinished

        return history.forget(current, may_be_published, "prediction", dry_run)

    def _table(self, *, create: bool) -> Any:
        from deltalake import DeltaTable, Schema
        from deltalake.exceptions import TableNotFoundError

        self.location.check_table()
        options = self.location.delta_options()
        with storage_errors(self.location.url):
            try:
                return DeltaTable(self.location.url, storage_options=options)
            except TableNotFoundError:
                if not create:
                    return None
            self.location.make()
            return DeltaTable.create(
                self.location.url,
                Schema.from_arrow(TABLE_SCHEMA),
                mode="ignore",
                partition_by=["upload_id"],
                storage_options=options,
            )

    def _files(self, run: Run, upload_id: str) -> list[tuple[str, int]]:
        """Paths and sizes of what the run's batches wrote."""
        folder = _folder(upload_id)
        found = self._fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        mine = [(f"{folder}/{info.base_name}", info.size) for info in found if info.base_name.startswith(_prefix(run))]
        return sorted(mine)

    @staticmethod
    def _published(table: Any) -> list[tuple[str, int, str, int]]:
        """(path, size in bytes, upload_id, run_id) of every visible file."""
        actions = pa.table(table.get_add_actions(flatten=True))
        if not len(actions):
            return []
        names = ["path", "size_bytes", "partition.upload_id", "min.run_id"]
        files = list(zip(*(pc.cast(actions[n], actions[n].type).to_pylist() for n in names), strict=True))
        for path, *_ in files:
            own_data_file(path)
        return files


_OF_RUN = re.compile(r"run-(\d+)-")


def _folder(upload_id: str | None) -> str:
    return f"upload_id={upload_id}"


def _prefix(run: Run) -> str:
    return f"run-{run.run_id}-"
