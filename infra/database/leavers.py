"""Tenants as those need to know them who look for one of them among all others."""

from __future__ import annotations

from sqlalchemy import Connection, text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.mentions import Leaver

KNOWN = text(
    """
    SELECT t.tenant, t.name, t.tier, t.isolation,
           coalesce(array_agg(u.use_case ORDER BY u.use_case) FILTER (WHERE u.use_case IS NOT NULL), '{}') AS use_cases,
           coalesce(array_agg(DISTINCT t.tenant || '-' || (u.spec->'pull'->>'secret'))
                        FILTER (WHERE u.spec->'pull'->>'secret' IS NOT NULL), '{}') AS secrets
    FROM tenants AS t LEFT JOIN use_cases AS u ON u.tenant = t.tenant
    GROUP BY t.tenant ORDER BY t.tenant
    """
)


def leavers(cluster: Cluster) -> dict[str, Leaver]:
    """Every tenant, by id, with all use cases that it ever had."""

    def read(connection: Connection) -> dict[str, Leaver]:
        return {row["tenant"]: Leaver.model_validate(dict(row)) for row in connection.execute(KNOWN).mappings()}

    return transact(cluster.operator_url, read)
