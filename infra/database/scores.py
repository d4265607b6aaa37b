"""Predictions and their live error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
from sqlalchemy import Connection, and_, delete, insert, text, update
from sqlalchemy.dialects import postgresql

from infra.database.booking import book_batch
from infra.database.connect import driver
from infra.database.frames import copy_predictions, read_frame, to_rows
from infra.database.runs import RunRecords
from infra.database.tables import HealthRow, ScoredPartitionRow, ScoringRunRow, predictions_of, table
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Run
from tasks.ports import HEALTH

SCORING_RUNS, SCORED, HEALTHS = table(ScoringRunRow), table(ScoredPartitionRow), table(HealthRow)


class ScoreRecords(RunRecords):
    """What was predicted, and how it turned out."""

    def finish_scoring_batch(self, batch: Batch, rows: pa.Table, *, bytes_in: int = 0) -> None:
        """Stores `PREDICTION` rows, unseen by readers until `publish_scores`, and what the batch used, and marks it as
        finished, together; replaces rows of an earlier finish."""
        partition = predictions_of(self.tenant)
        own = {"tenant": self.tenant, "run_id": batch.run_id, "batch": batch.number}
        counted = [row | own for row in _counted(rows)]

        def work(connection: Connection) -> None:
            again = self._close_batch(connection, batch)
            counts = {"rows_in": batch.rows, "rows_out": rows.num_rows, "bytes_in": bytes_in, "bytes_out": rows.nbytes}
            book_batch(connection, self.tenant, Stage.SCORING, batch, again=again, **counts)
            if again:  # searching for earlier rows costs time: only where there are any
                connection.execute(
                    text(f'DELETE FROM "{partition}" WHERE run_id = :run_id AND batch = :number'),  # noqa: S608
                    {"run_id": batch.run_id, "number": batch.number},
                )
                connection.execute(delete(SCORED).where(self._of_run(SCORED, batch), SCORED.c.batch == batch.number))
            if counted:
                connection.execute(insert(SCORED), counted)
            copy_predictions(driver(connection), partition, batch.run_id, batch.number, rows)

        self._transact(work)

    def scored(self, run: Run) -> pd.DataFrame:
        """One row per (partition, answer, fallback) of a scoring run, sorted by partition: those, `rows`, and `known`
        (whether the run's release has the partition). Batches that are not finished are not in it."""
        query = text(
            """
            SELECT partition, answer, fallback, sum(rows)::bigint AS rows,
                   EXISTS (SELECT FROM verdicts AS v WHERE v.tenant = :tenant AND v.use_case = :use_case
                           AND v.version = :release AND v.partition = s.partition) AS known
            FROM scored_partitions AS s WHERE tenant = :tenant AND run_id = :run_id
            GROUP BY partition, answer, fallback ORDER BY partition COLLATE "C", answer, fallback
            """
        )
        values = {"tenant": self.tenant, "run_id": run.run_id, "use_case": run.use_case, "release": run.release_version}
        return self._transact(lambda connection: read_frame(connection, query, values))

    def publish_scores(self, run: Run, receipt: Mapping[str, object]) -> Run:
        """Makes a scoring run's rows the current ones for its upload, and finishes the run, in one transaction.

        Rows of superseded runs stay, unseen.
        """
        if run.release_version is None:
            raise ValueError(f"run {run.run_id} was opened without the release that it scores with")
        values = {
            "tenant": self.tenant, "run_id": run.run_id, "use_case": run.use_case, "upload_id": run.upload_id,
            "release_version": run.release_version,
        }  # fmt: skip
        first = postgresql.insert(SCORING_RUNS).values(values).on_conflict_do_nothing()
        others = and_(
            self._own(SCORING_RUNS),
            SCORING_RUNS.c.use_case == run.use_case,
            SCORING_RUNS.c.upload_id.is_not_distinct_from(run.upload_id),
            SCORING_RUNS.c.run_id != run.run_id,
        )

        def work(connection: Connection) -> Run:
            # Publishing again must not bring an old run back, nor hide the one that superseded it.
            if connection.execute(first.returning(SCORING_RUNS.c.run_id)).first() is not None:
                connection.execute(update(SCORING_RUNS).where(others).values(superseded=True))
            return self._finish(connection, run, receipt)

        return self._transact(work)

    def predictions(self, use_case: str, limit: int | None = None) -> pd.DataFrame:
        """Rows of the view `current_predictions`."""
        query = text("SELECT * FROM current_predictions WHERE use_case = :use_case LIMIT CAST(:limit AS bigint)")
        own = {"use_case": use_case, "limit": limit}
        return self._transact(lambda connection: read_frame(connection, query, own))

    def save_health(self, run: Run, rows: pd.DataFrame) -> None:
        """Stores `HEALTH` rows and finishes the run, in one transaction; replaces those of the same run."""
        own = {"tenant": self.tenant, "run_id": run.run_id}
        values = [row | own for row in to_rows(rows, HEALTHS, HEALTH)]
        receipt = {"partitions": len(rows), "rows": sum(row["rows"] for row in values)}

        def work(connection: Connection) -> None:
            connection.execute(delete(HEALTHS).where(self._of_run(HEALTHS, run)))
            if values:
                connection.execute(insert(HEALTHS), values)
            self._finish(connection, run, run.receipt or receipt)

        self._transact(work)

    def health(self, use_case: str) -> pd.DataFrame:
        """Rows of the view `model_health`, sorted by partition."""
        query = text('SELECT * FROM model_health WHERE use_case = :use_case ORDER BY partition COLLATE "C", metric')
        return self._transact(lambda connection: read_frame(connection, query, {"use_case": use_case}))


def _counted(rows: pa.Table) -> list[dict[str, Any]]:
    keys = ["partition", "answer", "fallback"]
    counts: pa.Table = rows.select(keys).group_by(keys).aggregate([([], "count_all")])
    return list(counts.rename_columns([*keys, "rows"]).to_pylist())
