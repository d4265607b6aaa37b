"""What serves, across all tenants, in two small queries: whoever answers online asks every other second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.operator import Operator
from infra.database.tables import ReleaseRow, TenantRow, table

RELEASES, TENANTS = table(ReleaseRow), table(TenantRow)


class Deployed(NamedTuple):
    """Which release serves each (tenant, use case), and of each tenant what changes whenever its definition does."""

    champions: dict[tuple[str, str], int]
    marks: dict[str, str]


@dataclass(frozen=True)
class ServingView:
    """The operator's view of what serves."""

    cluster: Cluster

    def deployed(self) -> Deployed:
        """Raises `DatabaseUnavailable` at once: the caller goes on with what it knows, and asks again soon."""
        champions: dict[tuple[str, str], int] = {}
        rows = select(RELEASES.c.tenant, RELEASES.c.use_case, RELEASES.c.version).where(RELEASES.c.status == "champion")
        for url in Operator(self.cluster).data_urls(patient=False).values():
            found = transact(url, lambda connection: connection.execute(rows).all(), patient=False)
            champions |= {(row.tenant, row.use_case): row.version for row in found}
        marks = select(TENANTS.c.tenant, TENANTS.c.updated_at, TENANTS.c.tier, TENANTS.c.isolation, TENANTS.c.state)
        seen = transact(self.cluster.operator_url, lambda connection: connection.execute(marks).all(), patient=False)
        return Deployed(champions, {row.tenant: " ".join(map(str, row[1:])) for row in seen})
