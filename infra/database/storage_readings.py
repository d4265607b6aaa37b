"""How many bytes each tenant keeps where, reading by reading."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.tables import predictions_of

CHANGED = text(
    """
    INSERT INTO stored (tenant, use_case, place, at, bytes)
    SELECT :tenant, :use_case, :place, now(), :bytes
    WHERE :bytes <> coalesce((
        SELECT bytes FROM stored WHERE (tenant, use_case, place) = (:tenant, :use_case, :place)
        ORDER BY at DESC LIMIT 1), 0)
    """
)


class Stored(NamedTuple):
    """Bytes that a use case keeps in one place: `lake`, `models` or `database`."""

    tenant: str
    use_case: str
    place: str
    bytes: int


def record_stored(cluster: Cluster, readings: Iterable[Stored]) -> None:
    """Stores readings of one moment, each of which holds until another differs from it."""
    rows = [reading._asdict() for reading in readings]
    if rows:
        transact(cluster.operator_url, lambda connection: connection.execute(CHANGED, rows))


def database_bytes(url: str, tenant: str) -> dict[str, int]:
    """What a tenant's rows take in the database, by use case, read with its own login at `url`.

    Predictions, with their indexes, are shared out by the numbers of their rows; of models, verdicts and live errors,
    the rows alone count. Small tables do not.
    """
    query = text(
        """
        WITH scored AS (
            SELECT r.use_case, sum(greatest(s.rows, 1)) AS rows
            FROM scored_partitions AS s JOIN runs AS r USING (tenant, run_id)
            WHERE tenant = :tenant GROUP BY r.use_case
        ), sizes AS (
            SELECT use_case, rows / sum(rows) OVER () * pg_total_relation_size(CAST(:predictions AS regclass)) AS bytes
            FROM scored
            UNION ALL
            SELECT r.use_case, sum(pg_column_size(m.*))
            FROM partition_models AS m JOIN runs AS r USING (tenant, run_id) WHERE tenant = :tenant GROUP BY r.use_case
            UNION ALL
            SELECT use_case, sum(pg_column_size(v.*)) FROM verdicts AS v WHERE tenant = :tenant GROUP BY use_case
            UNION ALL
            SELECT r.use_case, sum(pg_column_size(h.*))
            FROM health AS h JOIN runs AS r USING (tenant, run_id) WHERE tenant = :tenant GROUP BY r.use_case
        )
        SELECT u.use_case, coalesce(sum(s.bytes), 0)::bigint AS bytes
        FROM use_cases AS u LEFT JOIN sizes AS s USING (use_case) WHERE u.tenant = :tenant GROUP BY u.use_case
        """
    )
    values = {"tenant": tenant, "predictions": f'"{predictions_of(tenant)}"'}
    rows = transact(url, lambda connection: connection.execute(query, values).all())
    return {row.use_case: row.bytes for row in rows}
