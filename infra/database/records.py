"""One tenant's rows in the database, through that tenant's own login."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, RowMapping, and_, case, delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql

from infra.database.connect import driver, session, transact
from infra.database.frames import copy_predictions, read_frame, to_rows
from infra.database.tables import (
    BatchRow,
    HealthRow,
    PartitionModelRow,
    ReleaseRow,
    RunRow,
    ScoringRunRow,
    UploadRow,
    UseCaseRow,
    VerdictRow,
    table,
)
from tasks.domain.errors import Busy, NotFound
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Release, Run, RunStatus, Upload, UploadStatus
from tasks.ports import HEALTH, PARTITION_MODEL, VERDICT

USE_CASES, UPLOADS, RUNS, BATCHES = table(UseCaseRow), table(UploadRow), table(RunRow), table(BatchRow)
MODELS, SCORINGS, HEALTHS = table(PartitionModelRow), table(ScoringRunRow), table(HealthRow)
RELEASES, VERDICTS = table(ReleaseRow), table(VerdictRow)

Result = TypeVar("Result")


@dataclass(frozen=True)
class PostgresRecords:
    """Implements `tasks.ports.Records`. Holds a URL and a tenant's id, pickles, and connects on first use."""

    url: str = field(repr=False)
    tenant: str

    # uploads

    def add_upload(
        self, use_case: str, purpose: Purpose, upload_id: str, filename: str, size_bytes: int, content_sha256: str
    ) -> tuple[Upload, bool]:
        """The upload of that identity, and whether it is new. Raises `NotFound` for an unknown use case."""

        def work(connection: Connection) -> tuple[Upload, bool]:
            mine = (USE_CASES.c.tenant == self.tenant) & (USE_CASES.c.use_case == use_case)
            # The row lock orders uploads of the use case: numbers have no gaps, and the second of two equals finds the first.
            last = connection.scalar(select(USE_CASES.c.last_seq).where(mine).with_for_update(key_share=True))
            if last is None:
                raise NotFound(f"tenant {self.tenant!r} has no use case {use_case!r}", hint="orchard tenants show")
            found = _uploads(connection, UPLOADS.c.upload_id == upload_id)
            if found:
                return found[0], False
            connection.execute(update(USE_CASES).where(mine).values(last_seq=last + 1))
            values = {
                "tenant": self.tenant, "use_case": use_case, "purpose": purpose.value, "upload_id": upload_id,
                "filename": filename, "size_bytes": size_bytes, "content_sha256": content_sha256,
                "seq": last + 1, "status": UploadStatus.RECEIVED.value,
            }  # fmt: skip
            connection.execute(insert(UPLOADS).values(values))
            return _uploads(connection, UPLOADS.c.upload_id == upload_id)[0], True

        return self._transact(work)

    def upload(self, upload_id: str) -> Upload:
        """Raises `NotFound`."""
        found = self._transact(lambda connection: _uploads(connection, UPLOADS.c.upload_id == upload_id))
        return _only(found, f"there is no upload {upload_id!r}", self.tenant)

    def uploads(self, use_case: str | None = None) -> list[Upload]:
        """In the order of arrival."""
        return self._transact(lambda connection: _uploads(connection, *_if(UPLOADS.c.use_case, use_case)))

    def update_upload(self, upload_id: str, **fields: object) -> Upload:
        """Sets fields of `Upload`. Raises `NotFound`."""

        def work(connection: Connection) -> list[Upload]:
            mine = (UPLOADS.c.tenant == self.tenant) & (UPLOADS.c.upload_id == upload_id)
            connection.execute(update(UPLOADS).where(mine).values(fields))
            return _uploads(connection, mine)

        return _only(self._transact(work), f"there is no upload {upload_id!r}", self.tenant)

    @contextmanager
    def lock(self, use_case: str) -> Iterator[None]:
        """Holds the use case for one run at a time; freed when the process ends, however it ends. Raises `Busy`."""
        digest = hashlib.sha256(f"{self.tenant}\x00{use_case}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        with session(self.url) as connection:
            if not connection.scalar(select(func.pg_try_advisory_lock(key))):
                raise Busy(
                    f"another run works on {self.tenant}.{use_case}", hint="wait until it has ended: orchard status"
                )
            yield

    # runs

    def open_run(
        self, stage: Stage, use_case: str, key: str, *, upload_id: str | None = None, dataset_version: int | None = None
    ) -> Run:
        """The run of that key: new, or the old one with `attempts` raised and, unless it had finished, running."""
        values = {
            "tenant": self.tenant, "key": key, "use_case": use_case, "stage": stage.value,
            "status": RunStatus.RUNNING.value, "upload_id": upload_id, "dataset_version": dataset_version,
        }  # fmt: skip
        done = RUNS.c.status == RunStatus.FINISHED.value
        again = {
            "attempts": RUNS.c.attempts + 1,
            "status": case((done, RUNS.c.status), else_=RunStatus.RUNNING.value),
            "finished_at": case((done, RUNS.c.finished_at), else_=None),
            "error": None,
        }
        statement = (
            postgresql.insert(RUNS)
            .values(values)
            .on_conflict_do_update(index_elements=["tenant", "key"], set_=again)
            .returning(RUNS)
        )
        return self._transact(lambda connection: _run(connection.execute(statement).mappings().one()))

    def finish_run(self, run: Run, receipt: Mapping[str, object]) -> Run:
        """Stores the receipt and marks the run as finished."""
        return self._transact(lambda connection: self._finish(connection, run, receipt))

    def fail_run(self, run: Run, error: str) -> Run:
        """Marks the run as failed, unless it has finished."""

        def work(connection: Connection) -> Run:
            values = {"status": RunStatus.FAILED.value, "error": error, "finished_at": func.now()}
            unfinished = RUNS.c.status != RunStatus.FINISHED.value
            connection.execute(update(RUNS).where(self._is(RUNS, run), unfinished).values(values))
            return _run(connection.execute(select(RUNS).where(self._is(RUNS, run))).mappings().one())

        return self._transact(work)

    def _finish(self, connection: Connection, run: Run, receipt: Mapping[str, object]) -> Run:
        values = {
            "status": RunStatus.FINISHED.value, "receipt": dict(receipt), "finished_at": func.now(), "error": None
        }  # fmt: skip
        statement = update(RUNS).where(self._is(RUNS, run)).values(values).returning(RUNS)
        return _run(connection.execute(statement).mappings().one())

    def runs(self, use_case: str | None = None, stage: Stage | None = None) -> list[Run]:
        """Newest first."""
        chosen = (RUNS.c.tenant == self.tenant, *_if(RUNS.c.use_case, use_case), *_if(RUNS.c.stage, stage))
        query = select(RUNS).where(*chosen).order_by(RUNS.c.run_id.desc())
        return self._transact(lambda connection: [_run(row) for row in connection.execute(query).mappings()])

    # batches

    def plan(self, run: Run, batches: Sequence[Batch]) -> None:
        """Stores the batches of a run; does nothing when the run has a plan already."""

        def work(connection: Connection) -> None:
            connection.execute(select(RUNS.c.run_id).where(self._is(RUNS, run)).with_for_update())
            planned = connection.scalar(select(func.count()).select_from(BATCHES).where(self._is(BATCHES, run)))
            if not planned and batches:
                rows = [batch.model_dump() | {"partitions": list(batch.partitions)} for batch in batches]
                own = {"tenant": self.tenant, "run_id": run.run_id}
                connection.execute(insert(BATCHES), [row | own for row in rows])

        self._transact(work)

    def batches(self, run: Run, *, pending: bool = False) -> list[Batch]:
        """In order of number; `pending`: only those not finished."""
        chosen = [self._is(BATCHES, run), *([BATCHES.c.finished_at.is_(None)] if pending else [])]
        columns = [BATCHES.c[name] for name in Batch.model_fields]
        query = select(*columns).where(*chosen).order_by(BATCHES.c.number)
        return self._transact(
            lambda connection: [Batch.model_validate(dict(row)) for row in connection.execute(query).mappings()]
        )

    def start_batch(self, batch: Batch) -> None:
        """Counts the attempt."""
        statement = update(BATCHES).where(self._is_batch(batch)).values(attempts=BATCHES.c.attempts + 1)
        self._transact(lambda connection: connection.execute(statement))

    def finish_training_batch(self, batch: Batch, rows: pd.DataFrame) -> None:
        """Stores `PARTITION_MODEL` rows and marks the batch as finished, together; replaces rows of an earlier finish."""
        own = {"tenant": self.tenant, "run_id": batch.run_id, "batch": batch.number}
        values = [row | own for row in to_rows(rows.assign(batch=batch.number), MODELS, PARTITION_MODEL)]

        def work(connection: Connection) -> None:
            self._close_batch(connection, batch)
            connection.execute(delete(MODELS).where(self._is(MODELS, batch), MODELS.c.batch == batch.number))
            if values:
                connection.execute(insert(MODELS), values)

        self._transact(work)

    def partition_models(self, run: Run) -> pd.DataFrame:
        """The `PARTITION_MODEL` rows of a training run, sorted by partition."""
        columns = [MODELS.c[name] for name in PARTITION_MODEL]
        query = select(*columns).where(self._is(MODELS, run)).order_by(MODELS.c.partition.collate("C"))
        return self._transact(lambda connection: read_frame(connection, query))

    def finish_scoring_batch(self, batch: Batch, rows: pa.Table) -> None:
        """Stores `PREDICTION` rows, unseen by readers until `publish_scores`, and marks the batch as finished, together;
        replaces rows of an earlier finish."""
        partition = f"predictions_{self.tenant}"

        def work(connection: Connection) -> None:
            if self._close_batch(connection, batch):  # searching for earlier rows costs time: only where there are any
                connection.execute(
                    text(f'DELETE FROM "{partition}" WHERE run_id = :run_id AND batch = :number'),  # noqa: S608
                    {"run_id": batch.run_id, "number": batch.number},
                )
            copy_predictions(driver(connection), partition, batch.run_id, batch.number, rows)

        self._transact(work)

    def _close_batch(self, connection: Connection, batch: Batch) -> bool:
        """Marks the batch as finished; whether it was so before. Its row stays locked until the transaction ends."""
        query = select(BATCHES.c.finished_at).where(self._is_batch(batch)).with_for_update()
        found = connection.execute(query).one_or_none()
        if found is None:
            raise NotFound(f"run {batch.run_id} has no batch {batch.number}", hint="plan the run first")
        connection.execute(update(BATCHES).where(self._is_batch(batch)).values(finished_at=func.now()))
        return found.finished_at is not None

    # scores

    def publish_scores(self, run: Run, receipt: Mapping[str, object]) -> Run:
        """Makes a scoring run's rows the current ones for its upload, and finishes the run, in one transaction.

        `receipt["release_version"]` is the release that answered. Rows of superseded runs stay, unseen.
        """
        release = receipt.get("release_version")
        if not isinstance(release, int):
            raise ValueError(f"the receipt of a scoring run needs an integer release_version, not {release!r}")
        values = {
            "tenant": self.tenant, "run_id": run.run_id, "use_case": run.use_case, "upload_id": run.upload_id,
            "release_version": release,
        }  # fmt: skip
        earlier = and_(
            SCORINGS.c.tenant == self.tenant,
            SCORINGS.c.use_case == run.use_case,
            SCORINGS.c.upload_id.is_not_distinct_from(run.upload_id),
            SCORINGS.c.run_id != run.run_id,
        )

        def work(connection: Connection) -> Run:
            connection.execute(postgresql.insert(SCORINGS).values(values).on_conflict_do_nothing())
            connection.execute(update(SCORINGS).where(earlier).values(superseded=True))
            return self._finish(connection, run, receipt)

        return self._transact(work)

    def predictions(self, use_case: str, limit: int | None = None) -> pd.DataFrame:
        """Rows of the view `current_predictions`."""
        query = text("SELECT * FROM current_predictions WHERE use_case = :use_case LIMIT :limit")
        own = {"use_case": use_case, "limit": limit}
        return self._transact(lambda connection: read_frame(connection, query, own))
