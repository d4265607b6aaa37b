"""What the processes that serve all tenants have used: it is nobody's, and shown as such."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, Float, cast, func, literal, select
from sqlalchemy.dialects import postgresql

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.tables import table
from infra.database.usage_tables import OverheadRow

OVERHEAD = table(OverheadRow)


class Reading(NamedTuple):
    """What a process, with those that it started, has used since it began. `process` names no other one, ever."""

    process: str
    part: str
    cpu_s: float
    wall_s: float
    peak_mb: float


def record_overhead(cluster: Cluster, readings: Iterable[Reading]) -> None:
    """Adds what each process used since its last reading to the current hour; reading twice adds nothing twice."""
    wanted = list(readings)

    def work(connection: Connection) -> None:
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.overhead"))))
        for reading in wanted:
            _add(connection, reading)

    if wanted:
        transact(cluster.operator_url, work)


def _add(connection: Connection, reading: Reading) -> None:
    known = OVERHEAD.c.process == reading.process
    so_far = select(
        literal(reading.process),
        func.date_trunc("hour", func.now()),
        literal(reading.part),
        func.greatest(0.0, cast(literal(reading.cpu_s), Float) - func.coalesce(func.sum(OVERHEAD.c.cpu_s), 0.0)),
        func.greatest(0.0, cast(literal(reading.wall_s), Float) - func.coalesce(func.sum(OVERHEAD.c.wall_s), 0.0)),
        literal(reading.peak_mb),
    ).where(known)
    new = postgresql.insert(OVERHEAD).from_select(["process", "at", "part", "cpu_s", "wall_s", "peak_mb"], so_far)
    connection.execute(
        new.on_conflict_do_update(
            index_elements=["process", "at"],
            set_={
                "cpu_s": OVERHEAD.c.cpu_s + new.excluded.cpu_s,
                "wall_s": OVERHEAD.c.wall_s + new.excluded.wall_s,
                "peak_mb": func.greatest(OVERHEAD.c.peak_mb, new.excluded.peak_mb),
            },
        )
    )
