"""What tenants used in stretches of time: the measured side of costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from sqlalchemy import select, text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.frames import read_frame
from infra.database.operator import Operator
from infra.database.tables import table
from infra.database.usage_tables import MembershipRow
from tasks.domain.months import Span
from tasks.domain.tenant import Membership, Tier

MEMBERSHIPS = table(MembershipRow)

ALIVE_S = 30
"""A process that was read so recently still works; what it has not booked yet is no waste."""

USED = text(
    """
    SELECT tenant, use_case, stage, width_bucket(at, CAST(:starts AS timestamptz[])) - 1 AS span,
           sum(cpu_s) AS cpu_s, 0.0::double precision AS waste_s, 0.0::double precision AS byte_seconds,
           sum(CASE WHEN stage IN ('scoring', 'online') THEN rows_out ELSE 0 END)::bigint AS predictions,
           sum(requests)::bigint AS requests, sum(models_trained)::bigint AS models_trained,
           sum(models_reused)::bigint AS models_reused
    FROM usage
    WHERE at >= :start AND at < :end AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT tenant, use_case, stage, width_bucket(read_at, CAST(:starts AS timestamptz[])) - 1,
           sum(CASE stage WHEN 'waste' THEN 0 ELSE rest_s END), sum(CASE stage WHEN 'waste' THEN rest_s ELSE 0 END),
           0, 0, 0, 0, 0
    FROM (
        SELECT p.tenant, p.use_case, p.read_at, greatest(p.cpu_s - u.cpu_s, 0) AS rest_s,
               CASE WHEN p.ended = 'done' THEN 'start'
                    WHEN p.ended IS NULL AND p.read_at > now() - make_interval(secs => :alive) THEN 'running'
                    ELSE 'waste' END AS stage
        FROM processes AS p
        CROSS JOIN LATERAL (SELECT coalesce(sum(cpu_s), 0) AS cpu_s FROM usage
                            WHERE usage.tenant = p.tenant AND usage.process = p.process) AS u
        WHERE p.read_at >= :start AND p.read_at < :end AND (CAST(:tenant AS text) IS NULL OR p.tenant = :tenant)
    ) AS explained
    WHERE rest_s > 0
    GROUP BY 1, 2, 3, 4
    """
)

OVERHEAD = text(
    """
    SELECT part, width_bucket(at, CAST(:starts AS timestamptz[])) - 1 AS span, sum(cpu_s) AS cpu_s
    FROM overhead WHERE at >= :start AND at < :end GROUP BY 1, 2 ORDER BY 1, 2
    """
)

STORED = text(
    """
    WITH spans AS (
        SELECT * FROM unnest(CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[])) WITH ORDINALITY
            AS s (start, finish, number)
    ), lived AS (
        SELECT tenant, use_case, bytes, at,
               lead(at, 1, now()) OVER (PARTITION BY tenant, use_case, place ORDER BY at) AS until
        FROM stored WHERE at < :end AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    )
    SELECT tenant, use_case, 'storage' AS stage, (number - 1)::integer AS span,
           sum(bytes * extract(epoch FROM least(until, finish) - greatest(at, start)))::double precision AS byte_seconds
    FROM lived JOIN spans ON at < finish AND until > start
    GROUP BY 1, 2, 3, 4
    """
)


@dataclass(frozen=True)
class Consumption:
    """What all tenants used. Only the operator may hold it."""

    cluster: Cluster

    def used(self, spans: Sequence[Span], tenant: str | None = None) -> pd.DataFrame:
        """One row per tenant, use case, stage and span (its number, from 0) in which something was used: `cpu_s`,
        `waste_s` (of killed and failed work), `byte_seconds`, `predictions`, `requests`, `models_trained`,
        `models_reused`. Spans follow one another without gaps.

        Beside the pipeline's, stages are `online`, `start` (what processes need beside their work), `running` (what has
        not been booked yet), `waste` and `storage`.
        """
        parameters = {
            "starts": [span.start for span in spans],
            "ends": [span.end for span in spans],
            "start": spans[0].start,
            "end": spans[-1].end,
            "tenant": tenant,
            "alive": ALIVE_S,
        }
        urls = Operator(self.cluster).data_urls()
        frames = []
        for silo, url in urls.items():
            if silo not in (None, tenant) and tenant is not None:
                continue
            frame = transact(url, lambda connection: read_frame(connection, USED, parameters))
            frames.append(frame[~frame["tenant"].isin(urls.keys())] if silo is None else frame)
        frames.append(
            transact(self.cluster.operator_url, lambda connection: read_frame(connection, STORED, parameters))
        )
        found = pd.concat(frames, ignore_index=True)
        numbers = [name for name in found.columns if name not in ("tenant", "use_case", "stage")]
        return found.fillna(dict.fromkeys(numbers, 0)).astype({"span": "int64"})

    def memberships(self) -> dict[str, list[Membership]]:
        """Of every tenant, by time."""
        query = select(MEMBERSHIPS.c.tenant, MEMBERSHIPS.c.since, MEMBERSHIPS.c.tier).order_by(
            MEMBERSHIPS.c.tenant, MEMBERSHIPS.c.since
        )
        found: dict[str, list[Membership]] = {}
        for row in transact(self.cluster.operator_url, lambda connection: connection.execute(query).all()):
            found.setdefault(row.tenant, []).append(Membership(row.since, Tier(row.tier)))
        return found

    def overhead(self, spans: Sequence[Span]) -> pd.DataFrame:
        """CPU seconds (`cpu_s`) of what serves all tenants, by `part` and `span`."""
        parameters = {"starts": [span.start for span in spans], "start": spans[0].start, "end": spans[-1].end}
        return transact(self.cluster.operator_url, lambda connection: read_frame(connection, OVERHEAD, parameters))
