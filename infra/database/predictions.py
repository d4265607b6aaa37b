"""What was predicted, read in pages that begin where the one before ended.

The order is that of publication: run by run, batch by batch, and within a batch by partition and row key. What is
published later comes later, so that a reader who goes on from a place misses nothing. The table of predictions has no
key, for loading's sake; a block range index finds the batches of a run, and the table `batches` says which there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from sqlalchemy import Connection, func, select, text, tuple_

from infra.database.arrow import DOUBLES, UTC, read_table
from infra.database.connect import driver
from infra.database.runs import BATCHES
from infra.database.scores import SCORING_RUNS
from infra.database.tables import predictions_of
from infra.database.tenant_rows import TenantRows

STORED = pa.schema(
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
        ("run_id", pa.int64()),
        ("batch", pa.int32()),
    ]
)
OF_RUN = pa.schema([("release_version", pa.int64()), ("upload_id", pa.string()), ("scored_at", UTC)])
"""What all rows of a run share."""

PREDICTIONS = pa.schema([*STORED, *OF_RUN])

ONE_CORE = text("SELECT set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true)")
"""Helpers of the server, and a compiler, take longer to start than such a query does; others need the cores."""

RUNS_AT_ONCE = 100
"""The batches of so many runs are looked up together."""

READ_ROWS = 50_000
"""Batches are read together up to so many rows."""


@dataclass(frozen=True)
class Wanted:
    """Which predictions are wanted. `current`: only what the latest run of each upload says."""

    use_case: str
    partition: str | None = None
    row_key: str | None = None
    release: int | None = None
    since: datetime | None = None
    current: bool = True


class ScoredRun(NamedTuple):
    """A scoring run that was published."""

    published_at: datetime
    run_id: int
    release_version: int
    upload_id: str | None


class Place(NamedTuple):
    """Where a row stands in the order of all."""

    published_at: datetime
    run_id: int
    batch: int
    partition: str
    row_key: str


class _Piece(NamedTuple):
    """Batches of a run that are read together."""

    run_id: int
    first: int
    last: int


class PredictionRecords(TenantRows):
    """What was predicted."""

    def scored_runs(self, wanted: Wanted, after: Place | None = None) -> list[ScoredRun]:
        """The runs that have what is wanted, in the order of publication; `after`: from the one of that place on."""
        runs = SCORING_RUNS.c
        chosen = [self._own(SCORING_RUNS), runs.use_case == wanted.use_case]
        if wanted.current:
            chosen.append(~runs.superseded)
        if wanted.release is not None:
            chosen.append(runs.release_version == wanted.release)
        if wanted.since is not None:
            chosen.append(runs.published_at >= wanted.since)
        if after is not None:
            chosen.append(tuple_(runs.published_at, runs.run_id) >= (after.published_at, after.run_id))
        query = select(*(runs[name] for name in ScoredRun._fields)).where(*chosen)
        query = query.order_by(runs.published_at, runs.run_id)
        return self._transact(lambda connection: [ScoredRun(*row) for row in connection.execute(query)])

    def predictions_after(self, wanted: Wanted, runs: Sequence[ScoredRun], after: Place | None, limit: int) -> pa.Table:
        """The first rows of `PREDICTIONS` after a place, at most so many. `runs`: those of `scored_runs`, in order.

        Rows of a published run do not change, so who keeps the runs reads one and the same state to its end.
        """
        left = list(runs)
        if after is not None:  # the run of that place may be gone: a later one of its upload has superseded it
            left = [run for run in runs if (run.published_at, run.run_id) >= (after.published_at, after.run_id)]
        first = after.batch if after is not None and left and left[0].run_id == after.run_id else 0

        def work(connection: Connection) -> pa.Table:
            connection.execute(ONE_CORE)
            found, rows = [STORED.empty_table()], 0
            for pieces in self._pieces(connection, wanted, left, first, limit):
                found.append(self._rows(connection, wanted, pieces, after, limit - rows))
                rows += len(found[-1])
                if rows >= limit:
                    break
            return pa.concat_tables(found)

        return _with_runs(self._transact(work), left)

    def _pieces(
        self, connection: Connection, wanted: Wanted, runs: Sequence[ScoredRun], first: int, limit: int
    ) -> Iterator[list[_Piece]]:
        """The batches that may have what is wanted, from batch `first` of the first run on; together in a list, what
        is worth a query of its own."""
        narrow = wanted.partition is not None or wanted.row_key is not None
        enough = READ_ROWS if narrow else min(limit, READ_ROWS)
        pieces: list[_Piece] = []
        rows = 0
        for start in range(0, len(runs), RUNS_AT_ONCE):
            ids = [run.run_id for run in runs[start : start + RUNS_AT_ONCE]]
            query = select(BATCHES.c.run_id, BATCHES.c.number, BATCHES.c.rows)
            query = query.where(self._own(BATCHES), BATCHES.c.run_id == func.any(ids))
            if wanted.partition is not None:
                query = query.where(BATCHES.c.partitions.any(wanted.partition))
            query = query.order_by(func.array_position(ids, BATCHES.c.run_id), BATCHES.c.number)
            for run_id, number, size in connection.execute(query).all():
                if run_id == runs[0].run_id and number < first:
                    continue
                if pieces and rows >= enough:
                    yield pieces
                    pieces, rows = [], 0
                if pieces and pieces[-1].run_id == run_id:
                    pieces[-1] = pieces[-1]._replace(last=number)
                else:
                    pieces.append(_Piece(run_id, number, number))
                rows += 1 if wanted.row_key is not None else size
        if pieces:
            yield pieces

    def _rows(
        self, connection: Connection, wanted: Wanted, pieces: Sequence[_Piece], after: Place | None, limit: int
    ) -> pa.Table:
        ids = list(dict.fromkeys(piece.run_id for piece in pieces))
        either = sql.SQL(" OR ").join(
            sql.SQL("(run_id = {} AND batch BETWEEN {} AND {})").format(*map(sql.Literal, piece)) for piece in pieces
        )
        conditions, values = [sql.SQL("({})").format(either)], []
        for name, value in (("partition", wanted.partition), ("row_key", wanted.row_key)):
            if value is not None:
                conditions.append(sql.SQL("{} = %s").format(sql.Identifier(name)))
                values.append(value)
        if after is not None and after.run_id in ids:
            conditions.append(
                sql.SQL(
                    "NOT (run_id = {} AND batch = {} AND"
                    ' (partition COLLATE "C", row_key COLLATE "C") <= (%s::text, %s::text))'
                ).format(sql.Literal(after.run_id), sql.Literal(after.batch))
            )
            values += [after.partition, after.row_key]
        query = sql.SQL(
            "SELECT {columns} FROM {partition} WHERE {conditions}"
            " ORDER BY array_position({ids}::bigint[], run_id), batch,"
            ' partition COLLATE "C", row_key COLLATE "C" LIMIT {limit}'
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, STORED.names)),
            partition=sql.Identifier(predictions_of(self.tenant)),
            conditions=sql.SQL(" AND ").join(conditions),
            ids=sql.Literal(ids),
            limit=sql.Literal(limit),
        )
        return read_table(driver(connection), query, values, STORED)


def _with_runs(rows: pa.Table, runs: Sequence[ScoredRun]) -> pa.Table:
    """The rows with what those of a run share."""
    places = pc.index_in(rows["run_id"], pa.array([run.run_id for run in runs], pa.int64()))
    shared = pa.table(
        [
            pa.array([run.release_version for run in runs], pa.int64()),
            pa.array([run.upload_id for run in runs], pa.string()),
            pa.array([run.published_at for run in runs], UTC),
        ],
        schema=OF_RUN,
    )
    return pa.table([*rows.columns, *shared.take(places).columns], schema=PREDICTIONS)
