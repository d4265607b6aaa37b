"""How busy the slots of the tiers were."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
from sqlalchemy import text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.frames import read_frame

BUSY = text(
    """
    SELECT tier, pool, count(*) AS jobs,
           sum(extract(epoch FROM least(coalesce(finished_at, now()), :end) - greatest(submitted_at, :start)))
               ::double precision AS busy_s,
           (percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM submitted_at - created_at)))
               ::double precision AS waited_s,
           (percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM submitted_at - created_at)))
               ::double precision AS waited_95_s
    FROM jobs
    WHERE submitted_at < :end AND coalesce(finished_at, now()) > :start AND pool IS NOT NULL AND status <> 'waiting'
    GROUP BY tier, pool ORDER BY tier, pool
    """
)


def busy_slots(cluster: Cluster, start: datetime, end: datetime) -> pd.DataFrame:
    """One row per tier and work pool with a job between the two moments: `jobs`, seconds for which their last attempts
    held a slot (`busy_s`), and how long half of them, and all but one in twenty, had waited. A job that waits again
    holds none."""
    parameters = {"start": start, "end": end}
    return transact(cluster.operator_url, lambda connection: read_frame(connection, BUSY, parameters))
