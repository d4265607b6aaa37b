"""Models of partitions, and the releases that they are promoted to."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from sqlalchemy import BigInteger, ColumnElement, Connection, Table, delete, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql

from infra.database.booking import book_batch
from infra.database.frames import read_frame, to_rows
from infra.database.runs import BATCHES, RunRecords
from infra.database.tables import PartitionModelRow, ReleaseRow, VerdictRow, table
from tasks.domain.errors import NotFound
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Release, Run
from tasks.ports import PARTITION_MODEL, VERDICT

MODELS, RELEASES, VERDICTS = table(PartitionModelRow), table(ReleaseRow), table(VerdictRow)


class ModelRecords(RunRecords):
    """What was trained, and what serves."""

    def finish_training_batch(self, batch: Batch, rows: pd.DataFrame, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Stores `PARTITION_MODEL` rows and what the batch used, and marks it as finished, together;
        replaces the rows of an earlier finish."""
        own = {"tenant": self.tenant, "run_id": batch.run_id, "batch": batch.number}
        values = [row | own for row in to_rows(rows.assign(batch=batch.number), MODELS, PARTITION_MODEL)]

        outcomes = rows["outcome"].value_counts()
        counts = {
            "rows_in": int(rows["rows"].sum()),
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "models_trained": int(outcomes.get("trained", 0)),
            "models_reused": int(outcomes.get("reused", 0)),
        }

        def work(connection: Connection) -> None:
            again = self._close_batch(connection, batch)
            book_batch(connection, self.tenant, Stage.TRAINING, batch, again=again, **counts)
            connection.execute(delete(MODELS).where(self._of_run(MODELS, batch), MODELS.c.batch == batch.number))
            if values:
                connection.execute(insert(MODELS), values)

        self._transact(work)

    def leave(self, run: Run, why: str) -> None:
        """Stores `PARTITION_MODEL` rows for the partitions of batches that are not finished: they are left. Finishing
        the batch replaces them."""
        columns = ["tenant", "run_id", "partition", "batch", "outcome", "rows", "reason"]
        pending = self._of_run(BATCHES, run) & BATCHES.c.finished_at.is_(None)
        partition = func.unnest(BATCHES.c.partitions)
        facts = (BATCHES.c.number, literal("left"), literal(0, BigInteger), literal(why))
        left = select(BATCHES.c.tenant, BATCHES.c.run_id, partition, *facts).where(pending)
        statement = postgresql.insert(MODELS).from_select(columns, left)
        again = statement.on_conflict_do_update(
            index_elements=["tenant", "run_id", "partition"], set_={"reason": statement.excluded.reason}
        )
        self._transact(lambda connection: connection.execute(again))

    def failed_partitions(self, run: Run) -> int:
        """How many partitions of a training run have failed so far."""
        query = select(func.count()).where(self._of_run(MODELS, run), MODELS.c.outcome == "failed")
        return self._transact(lambda connection: connection.scalar(query)) or 0

    def retry_failed(self, run: Run) -> None:
        """Opens again the batches in which partitions failed: they are pending, and their rows are gone."""

        def work(connection: Connection) -> None:
            failed = select(MODELS.c.batch).where(self._of_run(MODELS, run), MODELS.c.outcome == "failed").distinct()
            numbers = list(connection.scalars(failed))
            again = update(BATCHES).where(self._of_run(BATCHES, run), BATCHES.c.number.in_(numbers))
            connection.execute(again.values(finished_at=None))
            connection.execute(delete(MODELS).where(self._of_run(MODELS, run), MODELS.c.batch.in_(numbers)))

        self._transact(work)

    def partition_models(self, run: Run, partitions: Sequence[str] | None = None) -> pd.DataFrame:
        """The `PARTITION_MODEL` rows of a training run, sorted by partition; of some partitions, or of all."""
        query = select(*(MODELS.c[name] for name in PARTITION_MODEL)).where(self._of_run(MODELS, run))
        if partitions is not None:
            query = query.where(MODELS.c.partition == func.any(list(partitions)))
        query = query.order_by(MODELS.c.partition.collate("C"))
        return self._transact(lambda connection: read_frame(connection, query))

    def add_release(self, release: Release, verdicts: pd.DataFrame) -> None:
        """Stores a release and its `VERDICT` rows; replaces them when the version is there already."""
        values = release.model_dump() | {"tenant": self.tenant}
        own = {"tenant": self.tenant, "use_case": release.use_case, "version": release.version}
        rows = [row | own for row in to_rows(verdicts, VERDICTS, VERDICT)]
        statement = postgresql.insert(RELEASES).values(values)
        statement = statement.on_conflict_do_update(
            index_elements=["tenant", "use_case", "version"], set_=release.model_dump()
        )

        def work(connection: Connection) -> None:
            connection.execute(statement)
            connection.execute(delete(VERDICTS).where(self._is(VERDICTS, release.use_case, release.version)))
            if rows:
                connection.execute(insert(VERDICTS), rows)

        self._transact(work)

    def set_champion(self, use_case: str, version: int) -> None:
        """Marks one release as champion and the earlier champion as retired. Raises `NotFound`."""

        def work(connection: Connection) -> None:
            earlier = self._own(RELEASES) & (RELEASES.c.use_case == use_case) & (RELEASES.c.version != version)
            retired = update(RELEASES).where(earlier, RELEASES.c.status == "champion")
            connection.execute(retired.values(status="retired"))
            chosen = update(RELEASES).where(self._is(RELEASES, use_case, version)).values(status="champion")
            if connection.execute(chosen).rowcount == 0:
                raise NotFound(
                    f"{self.tenant}.{use_case} has no release {version}",
                    hint=f"orchard releases list {self.tenant} {use_case}",
                )

        self._transact(work)

    def releases(self, use_case: str, *, below: int | None = None, limit: int | None = None) -> list[Release]:
        """Newest first; `below`: only those with smaller versions."""
        columns = [RELEASES.c[name] for name in Release.model_fields]
        mine = self._own(RELEASES) & (RELEASES.c.use_case == use_case)
        if below is not None:
            mine &= RELEASES.c.version < below
        query = select(*columns).where(mine).order_by(RELEASES.c.version.desc()).limit(limit)
        return self._transact(
            lambda connection: [Release.model_validate(dict(row)) for row in connection.execute(query).mappings()]
        )

    def verdicts(self, use_case: str, version: int) -> pd.DataFrame:
        """The `VERDICT` rows of a release, sorted by partition."""
        columns = [VERDICTS.c[name] for name in VERDICT]
        query = select(*columns).where(self._is(VERDICTS, use_case, version))
        query = query.order_by(VERDICTS.c.partition.collate("C"))
        return self._transact(lambda connection: read_frame(connection, query))

    def _is(self, rows: Table, use_case: str, version: int) -> ColumnElement[bool]:
        return self._own(rows) & (rows.c.use_case == use_case) & (rows.c.version == version)
