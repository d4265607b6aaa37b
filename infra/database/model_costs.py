"""What models cost to keep fresh, partition by partition."""

from __future__ import annotations

import pandas as pd
from sqlalchemy import text

from infra.database.connect import transact
from infra.database.frames import read_frame

MODELS = text(
    """
    WITH latest AS (
        SELECT max(run_id) AS run_id FROM runs
        WHERE tenant = :tenant AND use_case = :use_case AND stage = 'training' AND status = 'finished'
    ), trained AS (
        SELECT m.partition, count(*) AS trainings, sum(m.seconds) AS training_s
        FROM partition_models AS m JOIN runs AS r USING (tenant, run_id)
        WHERE tenant = :tenant AND r.use_case = :use_case AND m.outcome IN ('trained', 'failed')
          AND r.started_at > now() - interval '30 days'
        GROUP BY m.partition
    )
    SELECT m.partition, m.estimator, m.rows, m.metric, m.tenant_wide_metric, m.model_bytes,
           coalesce(t.trainings, 0) AS trainings, coalesce(t.training_s, 0)::double precision AS training_s
    FROM partition_models AS m LEFT JOIN trained AS t USING (partition)
    WHERE m.tenant = :tenant AND m.run_id = (SELECT run_id FROM latest)
    ORDER BY m.partition COLLATE "C"
    """
)


def model_costs(url: str, tenant: str, use_case: str) -> pd.DataFrame:
    """The partitions of the latest training run: `partition`, `estimator`, `rows`, `metric`, `tenant_wide_metric`,
    `model_bytes`; `trainings` and `training_s` over the last thirty days."""
    parameters = {"tenant": tenant, "use_case": use_case}
    return transact(url, lambda connection: read_frame(connection, MODELS, parameters))
