"""What online requests used, booked by whoever answers them for all tenants."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import literal, select
from sqlalchemy.dialects import postgresql

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.deadline import within
from infra.database.operator import Operator
from infra.database.tables import TenantRow, table
from infra.database.usage_tables import UsageRow
from infra.metering import peak_mb
from tasks.domain.errors import OrchardError

logger = logging.getLogger(__name__)

USAGE, TENANTS = table(UsageRow), table(TenantRow)

ONLINE = "online"
"""The stage of requests."""

UNIT_S = 2.0
"""So long a database is asked to book one unit."""


@dataclass
class Used:
    """What some requests used."""

    requests: int = 0
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0


class OnlineUnit(NamedTuple):
    """What the requests of a few seconds used, answered for one use case by one release; `unit` names no other."""

    tenant: str
    use_case: str
    release: int
    unit: str
    process: str
    used: Used


def book_online(cluster: Cluster, units: Sequence[OnlineUnit]) -> Iterator[OnlineUnit]:
    """Books each in the database where its tenant's rows are, and then yields it. One whose tenant has left gets no
    row; one that is booked already stays as it is; one whose silo does not answer is left out. Raises
    `DatabaseUnavailable` at once."""
    urls = Operator(cluster).data_urls(patient=False) if units else {}
    silent: set[str] = set()
    for each in units:
        url = urls.get(each.tenant, urls[None])
        if url in silent:
            continue
        try:
            with within(UNIT_S):
                _book(url, each)
        except OrchardError as error:
            if url == urls[None]:
                raise
            logger.warning("what %s used waits to be booked: %s", each.tenant, error)
            silent.add(url)
        else:
            yield each


def _book(url: str, each: OnlineUnit) -> None:
    used = each.used
    values: dict[str, object] = {
        "tenant": each.tenant, "unit": each.unit, "use_case": each.use_case, "stage": ONLINE,
        "release_version": each.release, "process": each.process, "cpu_s": used.cpu_s, "wall_s": used.wall_s,
        "peak_mb": peak_mb(), "rows_in": used.rows, "rows_out": used.rows, "bytes_in": used.bytes_in,
        "bytes_out": used.bytes_out, "requests": used.requests,
    }  # fmt: skip
    source = select(*map(literal, values.values()), TENANTS.c.tier).where(TENANTS.c.tenant == each.tenant)
    booked = postgresql.insert(USAGE).from_select([*values, "tier"], source).on_conflict_do_nothing()
    transact(url, lambda connection: connection.execute(booked), patient=False)
