"""What past runs of a use case used, unit by unit and run by run; and whose may stand in for those of a new one."""

from __future__ import annotations

import pandas as pd
from sqlalchemy import text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.frames import read_frame
from infra.database.operator import Operator

JOBS = """
WITH jobs AS (
    SELECT p.tenant, p.process, p.cpu_s, p.peak_mb, p.started_at,
           EXTRACT(epoch FROM p.read_at - p.started_at)::double precision AS wall_s
    FROM processes AS p
    WHERE p.tenant = :tenant AND p.ended = 'done' AND EXISTS (
        SELECT FROM usage AS u WHERE (u.tenant, u.process) = (p.tenant, p.process)
            AND u.use_case = :use_case AND u.run_id IS NOT NULL
    )
    ORDER BY p.started_at DESC LIMIT :jobs
)
"""


def _count(name: str) -> str:
    """SQL: a number of a receipt. Receipts are the tenants' to write, and a run of one may stand in for another's."""
    return f"CASE WHEN r.receipt ->> '{name}' ~ '^[0-9]{{1,12}}$' THEN (r.receipt ->> '{name}')::bigint END"


UNITS = f"""
{JOBS},
worked AS (SELECT DISTINCT u.run_id FROM usage AS u JOIN jobs USING (tenant, process) WHERE u.stage = 'training'),
trained AS (
    SELECT run_id, batch, sum(rows) AS rows FROM partition_models JOIN worked USING (run_id)
    WHERE tenant = :tenant AND outcome = 'trained' GROUP BY run_id, batch
)
SELECT u.process AS job, u.stage || CASE WHEN u.batch IS NULL THEN '/rest' ELSE '/batch' END AS kind, u.cpu_s,
    coalesce(CASE
        WHEN u.batch IS NOT NULL AND u.stage = 'training' THEN u.models_trained
        WHEN u.batch IS NOT NULL THEN cardinality(b.partitions)
        WHEN u.stage = 'training' AND r.receipt ->> 'bundle_run' = r.run_id::text
            OR u.stage = 'promotion' AND r.receipt ->> 'release' IS NOT NULL
            OR u.stage = 'scoring' THEN {_count("partitions")}
    END, 0)::double precision AS partitions,
    coalesce(CASE
        WHEN u.batch IS NOT NULL AND u.stage = 'training' THEN m.rows
        WHEN u.batch IS NOT NULL OR u.stage = 'ingestion' THEN u.rows_in
        WHEN u.stage = 'training' THEN {_count("tenant_wide_rows")}
        WHEN u.stage = 'scoring' THEN {_count("rows")}
        WHEN u.stage = 'monitoring' THEN x.rows_accepted
    END, 0)::double precision AS rows,
    u.bytes_out::double precision AS bytes_out,
    CASE WHEN u.stage = 'training' THEN
        concat(r.receipt ->> 'contract_hash', '/', r.receipt ->> 'training_version') END AS recipe
FROM usage AS u JOIN jobs USING (tenant, process) JOIN runs AS r USING (tenant, run_id)
LEFT JOIN trained AS m ON (m.run_id, m.batch) = (u.run_id, u.batch)
LEFT JOIN batches AS b ON (b.tenant, b.run_id, b.number) = (u.tenant, u.run_id, u.batch)
LEFT JOIN uploads AS x ON (x.tenant, x.upload_id) = (r.tenant, r.upload_id)
WHERE u.use_case = :use_case
ORDER BY jobs.started_at DESC, u.run_id, u.batch
"""  # noqa: S608

PROCESSES = f"""
{JOBS}
SELECT process AS job, cpu_s, wall_s, peak_mb, (rank() OVER (ORDER BY started_at DESC) - 1)::integer AS age
FROM jobs ORDER BY started_at DESC
"""  # noqa: S608

FILES = """
SELECT filename, size_bytes, rows_read FROM uploads
WHERE tenant = :tenant AND use_case = :use_case AND rows_read > 0 AND size_bytes > 0
ORDER BY seq DESC LIMIT :jobs
"""

PEERS = """
SELECT u.tenant, u.use_case, t.tier, c.spec ->> 'kind' AS kind,
    sum(u.rows_in)::double precision / sum(u.models_trained) AS rows_per_partition
FROM usage AS u JOIN tenants AS t USING (tenant) JOIN use_cases AS c USING (tenant, use_case)
WHERE u.stage = 'training' AND u.models_trained > 0 AND u.at > now() - interval '90 days' AND t.state = 'active'
GROUP BY u.tenant, u.use_case, t.tier, c.spec ->> 'kind'
ORDER BY max(u.at) DESC, u.tenant, u.use_case LIMIT 500
"""


def past_units(url: str, tenant: str, use_case: str, jobs: int) -> pd.DataFrame:
    """Units of finished work of a use case's latest runs (processes that came to their end), newest first.

    Read at `url`. `job` (process), `kind` (stage and `batch` or `rest`), `cpu_s`, `partitions` and `rows` (what that
    grows with), `bytes_out`, and of training `recipe` (contract hash and training version).
    """
    return _read(url, UNITS, tenant, use_case, jobs)


def past_jobs(url: str, tenant: str, use_case: str, jobs: int) -> pd.DataFrame:
    """These runs, newest first: `job`, `cpu_s` and `wall_s` in all, `peak_mb`, `age` (0 is the newest)."""
    return _read(url, PROCESSES, tenant, use_case, jobs)


def past_files(url: str, tenant: str, use_case: str, files: int) -> pd.DataFrame:
    """The latest uploads that were read: `filename`, `size_bytes`, `rows_read`."""
    return _read(url, FILES, tenant, use_case, files)


def peers(cluster: Cluster) -> tuple[pd.DataFrame, dict[str | None, str]]:
    """Use cases that were trained in the last 90 days, the latest first: `tenant`, `use_case`, `tier`, `kind`,
    `rows_per_partition`; and where tenants' rows are (None: where no silo is)."""
    urls = Operator(cluster).data_urls()
    frames = []
    for silo, url in urls.items():
        frame = transact(url, lambda connection: read_frame(connection, text(PEERS)))
        frames.append(frame[~frame["tenant"].isin(urls.keys())] if silo is None else frame)
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True), urls


def _read(url: str, query: str, tenant: str, use_case: str, jobs: int) -> pd.DataFrame:
    values = {"tenant": tenant, "use_case": use_case, "jobs": jobs}
    return transact(url, lambda connection: read_frame(connection, text(query), values))
