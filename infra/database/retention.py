"""Rows that are old and serve nothing any more: superseded predictions, partitions of old training runs, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, cast, delete, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB

from infra.database.models import MODELS, RELEASES, VERDICTS
from infra.database.runs import BATCHES, RUNS
from infra.database.scores import SCORED, SCORING_RUNS
from infra.database.tables import predictions_of
from infra.database.tenant_rows import TenantRows
from tasks.domain.run import RunStatus

NEWER = SCORING_RUNS.alias("newer")


class RetentionRecords(TenantRows):
    """What is removed. Receipts stay."""

    def superseded_scores(self, use_case: str, cutoff: datetime) -> list[int]:
        """Scoring runs whose predictions were replaced before the cutoff."""
        replaced = select(NEWER.c.run_id).where(
            NEWER.c.tenant == SCORING_RUNS.c.tenant,
            NEWER.c.use_case == SCORING_RUNS.c.use_case,
            NEWER.c.upload_id.is_not_distinct_from(SCORING_RUNS.c.upload_id),
            NEWER.c.published_at > SCORING_RUNS.c.published_at,
            NEWER.c.published_at < cutoff,
        )
        old = SCORING_RUNS.c.superseded & replaced.exists()
        query = select(SCORING_RUNS.c.run_id).where(self._own(SCORING_RUNS), SCORING_RUNS.c.use_case == use_case, old)
        return self._transact(lambda connection: list(connection.scalars(query.order_by(SCORING_RUNS.c.run_id))))

    def remove_scores(self, run_ids: Sequence[int], dry_run: bool) -> int:
        """Removes the predictions and the plans of scoring runs; returns how many rows. Their receipts stay. One that
        was cut off, and is taken up after all, begins anew."""
        partition = f'"{predictions_of(self.tenant)}" WHERE run_id = ANY(:run_ids)'
        chosen = {"run_ids": list(run_ids)}

        def work(connection: Connection) -> int:
            if dry_run:
                return int(connection.scalar(text(f"SELECT count(*) FROM {partition}"), chosen) or 0)  # noqa: S608
            rows = connection.execute(text(f"DELETE FROM {partition}"), chosen).rowcount  # noqa: S608
            for each in (SCORED, BATCHES, SCORING_RUNS):
                connection.execute(delete(each).where(self._own(each), each.c.run_id.in_(run_ids)))
            self._unplan(connection, run_ids)
            return rows

        return self._transact(work) if run_ids else 0

    def remove_models(self, run_ids: Sequence[int]) -> None:
        """Removes the partitions and the plans of training runs; their receipts stay, and say that they are gone."""

        def work(connection: Connection) -> None:
            for each in (MODELS, BATCHES):
                connection.execute(delete(each).where(self._own(each), each.c.run_id.in_(run_ids)))
            gone = RUNS.c.receipt.op("||")(cast(literal('{"removed": "models"}'), JSONB))
            connection.execute(update(RUNS).where(self._own(RUNS), RUNS.c.run_id.in_(run_ids)).values(receipt=gone))
            self._unplan(connection, run_ids)

        self._transact(work)

    def _unplan(self, connection: Connection, run_ids: Sequence[int]) -> None:
        unfinished = RUNS.c.status != RunStatus.FINISHED.value
        chosen = update(RUNS).where(self._own(RUNS), RUNS.c.run_id.in_(run_ids), unfinished)
        connection.execute(chosen.values(planned_at=None))

    def remove_release(self, use_case: str, version: int) -> None:
        """Removes the verdicts of a release, and marks it as removed."""

        def of_it(rows: Table) -> ColumnElement[bool]:
            return self._own(rows) & (rows.c.use_case == use_case) & (rows.c.version == version)

        def work(connection: Connection) -> None:
            connection.execute(delete(VERDICTS).where(of_it(VERDICTS)))
            connection.execute(update(RELEASES).where(of_it(RELEASES)).values(status="removed"))

        self._transact(work)
