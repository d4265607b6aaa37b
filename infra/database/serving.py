"""What serves, across all tenants, in two small queries: whoever answers online asks every other second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.operator import Operator
from infra.database.silos import each_silo
from infra.database.tables import ReleaseRow, TenantRow, table

RELEASES, TENANTS = table(ReleaseRow), table(TenantRow)

SILO_S = 0.5
"""So long a silo's own database is asked."""


class Deployed(NamedTuple):
    """Which release serves each (tenant, use case), and of each tenant what changes whenever its definition does;
    `silent` are the silos whose databases did not say."""

    champions: dict[tuple[str, str], int]
    marks: dict[str, str]
    silent: frozenset[str]


@dataclass(frozen=True)
class ServingView:
    """The operator's view of what serves."""

    cluster: Cluster

    def deployed(self) -> Deployed:
        """Raises `DatabaseUnavailable` at once: the caller goes on with what it knows, and asks again soon."""
        urls = Operator(self.cluster).data_urls(patient=False)
        champions = _champions(urls[None])
        marks = select(TENANTS.c.tenant, TENANTS.c.updated_at, TENANTS.c.tier, TENANTS.c.isolation, TENANTS.c.state)
        seen = transact(self.cluster.operator_url, lambda connection: connection.execute(marks).all(), patient=False)
        silent = set()
        for tenant, theirs in each_silo(urls, SILO_S, _champions):
            if theirs is None:
                silent.add(tenant)
            else:
                champions |= theirs
        return Deployed(champions, {row.tenant: " ".join(map(str, row[1:])) for row in seen}, frozenset(silent))


def _champions(url: str) -> dict[tuple[str, str], int]:
    rows = select(RELEASES.c.tenant, RELEASES.c.use_case, RELEASES.c.version).where(RELEASES.c.status == "champion")
    found = transact(url, lambda connection: connection.execute(rows).all(), patient=False)
    return {(row.tenant, row.use_case): row.version for row in found}
