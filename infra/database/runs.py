"""Runs and their batches: what makes a killed run resume at its first unfinished batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from sqlalchemy import ColumnElement, Connection, RowMapping, case, func, insert, select, update
from sqlalchemy.dialects import postgresql

from infra.database.booking import book_rest
from infra.database.frames import to_rows
from infra.database.tables import BatchRow, PartitionModelRow, RunRow, table
from infra.database.tenant_rows import TenantRows, if_given
from infra.metering import shift
from tasks.domain.errors import NotFound
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Run, RunStatus
from tasks.ports import PARTITION_MODEL

RUNS, BATCHES, MODELS = table(RunRow), table(BatchRow), table(PartitionModelRow)


class RunRecords(TenantRows):
    """What was done, in which batches, and how it ended."""

    def open_run(
        self,
        stage: Stage,
        use_case: str,
        key: str,
        *,
        upload_id: str | None = None,
        dataset_version: int | None = None,
        release_version: int | None = None,
    ) -> Run:
        """The run of that key: new, or the old one with `attempts` raised and, unless it had finished, running."""
        values = {
            "tenant": self.tenant, "key": key, "use_case": use_case, "stage": stage.value,
            "status": RunStatus.RUNNING.value, "upload_id": upload_id, "dataset_version": dataset_version,
            "release_version": release_version,
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
        run = self._transact(lambda connection: run_of(connection.execute(statement).mappings().one()))
        shift().begin_run(run.run_id, use_case)
        return run

    def finish_run(self, run: Run, receipt: Mapping[str, object]) -> Run:
        """Stores the receipt and what the run used, and marks it as finished."""
        return self._transact(lambda connection: self._finish(connection, run, receipt))

    def fail_run(self, run: Run, error: str) -> Run:
        """Marks the run as failed, unless it has finished."""

        def work(connection: Connection) -> Run:
            values = {"status": RunStatus.FAILED.value, "error": error, "finished_at": func.now()}
            unfinished = RUNS.c.status != RunStatus.FINISHED.value
            connection.execute(update(RUNS).where(self._of_run(RUNS, run), unfinished).values(values))
            return run_of(connection.execute(select(RUNS).where(self._of_run(RUNS, run))).mappings().one())

        return self._transact(work)

    def stop_run(self, run: Run, receipt: Mapping[str, object], why: str) -> Run:
        """Stores the receipt and what this attempt used, and marks the run as stopped: it goes on when it may."""
        return self._transact(lambda connection: self._finish(connection, run, receipt, RunStatus.STOPPED, why))

    def _finish(
        self,
        connection: Connection,
        run: Run,
        receipt: Mapping[str, object],
        status_now: RunStatus = RunStatus.FINISHED,
        why: str | None = None,
    ) -> Run:
        values = {"status": status_now.value, "receipt": dict(receipt), "finished_at": func.now(), "error": why}
        status = connection.scalar(select(RUNS.c.status).where(self._of_run(RUNS, run)).with_for_update())
        if status != RunStatus.FINISHED.value:
            book_rest(connection, self.tenant, run, dict(receipt))
        statement = update(RUNS).where(self._of_run(RUNS, run)).values(values).returning(RUNS)
        return run_of(connection.execute(statement).mappings().one())

    def run(self, run_id: int) -> Run:
        """Raises `NotFound`."""
        query = select(RUNS).where(self._own(RUNS), RUNS.c.run_id == run_id)
        row = self._transact(lambda connection: connection.execute(query).mappings().one_or_none())
        if row is None:
            raise NotFound(f"tenant {self.tenant!r} has no run {run_id}", hint=f"orchard receipts {self.tenant}")
        return run_of(row)

    def runs(
        self,
        use_case: str | None = None,
        stage: Stage | None = None,
        *,
        status: RunStatus | None = None,
        below: int | None = None,
        limit: int | None = None,
    ) -> list[Run]:
        """Newest first; `below`: only those with smaller ids."""
        chosen = [
            self._own(RUNS),
            *if_given(RUNS.c.use_case, use_case),
            *if_given(RUNS.c.stage, stage),
            *if_given(RUNS.c.status, status),
            *([] if below is None else [RUNS.c.run_id < below]),
        ]
        query = select(RUNS).where(*chosen).order_by(RUNS.c.run_id.desc()).limit(limit)
        return self._transact(lambda connection: [run_of(row) for row in connection.execute(query).mappings()])

    def plan(self, run: Run, batches: Sequence[Batch], settled: pd.DataFrame | None = None) -> None:
        """Stores the batches of a run and, with them, `PARTITION_MODEL` rows of partitions that need no work
        (`batch` 0: batches count from 1); does nothing when the run has a plan already."""
        own = {"tenant": self.tenant, "run_id": run.run_id}
        planned = [batch.model_dump() | own | {"partitions": list(batch.partitions)} for batch in batches]
        models = [] if settled is None else to_rows(settled.assign(batch=0), MODELS, PARTITION_MODEL)

        def work(connection: Connection) -> None:
            first = self._of_run(RUNS, run) & RUNS.c.planned_at.is_(None)
            if connection.execute(update(RUNS).where(first).values(planned_at=func.now())).rowcount:
                if planned:
                    connection.execute(insert(BATCHES), planned)
                if models:
                    connection.execute(insert(MODELS), [row | own for row in models])

        self._transact(work)

    def planned(self, run: Run) -> bool:
        """Whether the run has a plan; one without any batch counts."""
        query = select(RUNS.c.planned_at).where(self._of_run(RUNS, run))
        return self._transact(lambda connection: connection.scalar(query)) is not None

    def batches(self, run: Run, *, pending: bool = False) -> list[Batch]:
        """In order of number; `pending`: only those not finished."""
        chosen = [self._of_run(BATCHES, run), *([BATCHES.c.finished_at.is_(None)] if pending else [])]
        columns = [BATCHES.c[name] for name in Batch.model_fields]
        query = select(*columns).where(*chosen).order_by(BATCHES.c.number)
        return self._transact(
            lambda connection: [Batch.model_validate(dict(row)) for row in connection.execute(query).mappings()]
        )

    def start_batch(self, batch: Batch) -> None:
        """Counts the attempt; from now on this thread's CPU is the batch's."""
        shift().begin_batch()
        statement = update(BATCHES).where(self._is_batch(batch)).values(attempts=BATCHES.c.attempts + 1)
        self._transact(lambda connection: connection.execute(statement))

    def _close_batch(self, connection: Connection, batch: Batch) -> bool:
        """Marks the batch as finished; whether it was so before. Its row stays locked until the transaction ends."""
        query = select(BATCHES.c.finished_at).where(self._is_batch(batch)).with_for_update()
        found = connection.execute(query).one_or_none()
        if found is None:
            raise NotFound(f"run {batch.run_id} has no batch {batch.number}", hint="plan the run first")
        connection.execute(update(BATCHES).where(self._is_batch(batch)).values(finished_at=func.now()))
        return found.finished_at is not None

    def _is_batch(self, batch: Batch) -> ColumnElement[bool]:
        return self._of_run(BATCHES, batch) & (BATCHES.c.number == batch.number)


def run_of(row: RowMapping) -> Run:
    """A row as a value."""
    return Run.model_validate({name: row[name] for name in Run.model_fields})
