"""Who runs next: the operator's view of all jobs. One claim at a time decides for all tiers, fairly within each.

Of a use case, one job at a time, and uploads in the order of their arrival, also while one waits to be tried again.
Within a tier's free slots, a tenant's first job goes before any tenant's second; among tenants, whoever was served
longest ago goes first. That is a round-robin that needs no list of tenants: a tenant that floods the queue waits behind
one that asks rarely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.jobs import JOBS, SILENT_S, given_back, job_of, postponed, request_job, settle_job
from tasks.domain.job import Job, JobKind
from tasks.domain.tenant import Tier, TierPolicy

UNSUBMITTED_S = 20
"""A claim without a run in Prefect after so long was never submitted: its dispatcher has died."""

UNTAKEN_WAIT_S = 15
"""What Prefect did not take is handed to it again after so long: it may be away for a while."""

UNSTARTED_S = 60
"""A submitted run that has not said that it works after so long is looked at."""

CLAIM = text(
    """
    WITH limits AS (
        SELECT * FROM unnest(CAST(:tiers AS text[]), CAST(:runs AS integer[]), CAST(:per_tenant AS integer[]))
            AS l (tier, runs, per_tenant)
    ), busy AS MATERIALIZED (
        SELECT tenant, use_case, pool FROM jobs WHERE status IN ('submitted', 'running')
    ), paused AS MATERIALIZED (  -- a later upload's rows replace an earlier one's, so it must not come before it
        SELECT tenant, use_case, min(created_at) AS since FROM jobs
        WHERE status = 'waiting' AND upload_id IS NOT NULL AND not_before > now() GROUP BY tenant, use_case
    ), next_of_use_case AS (
        SELECT DISTINCT ON (j.tenant, j.use_case) j.tenant, j.job_id, j.created_at
        FROM jobs AS j
        WHERE j.status = 'waiting' AND j.not_before <= now() AND j.held IS NULL
          AND NOT EXISTS (SELECT FROM busy AS b WHERE b.tenant = j.tenant AND b.use_case = j.use_case)
          AND NOT EXISTS (SELECT FROM paused AS p WHERE p.tenant = j.tenant AND p.use_case = j.use_case
                          AND j.upload_id IS NOT NULL AND j.created_at > p.since)
        ORDER BY j.tenant, j.use_case, j.created_at, j.job_id
    ), turns AS (
        SELECT n.*, t.tier, t.last_turn_at, t.isolation <> 'pool' AS own_pool,
               CASE t.isolation WHEN 'pool' THEN 'tier-' || t.tier ELSE 'tenant-' || t.tenant END AS pool,
               row_number() OVER (PARTITION BY n.tenant ORDER BY n.created_at, n.job_id)
                   + coalesce(b.running, 0) AS turn
        FROM next_of_use_case AS n
        JOIN tenants AS t ON t.tenant = n.tenant AND t.state = 'active'
        LEFT JOIN (SELECT tenant, count(*) AS running FROM busy GROUP BY tenant) AS b ON b.tenant = n.tenant
    ), ranked AS (
        SELECT turns.tenant, turns.job_id, turns.tier, turns.pool,
               CASE WHEN turns.own_pool THEN l.per_tenant ELSE l.runs END AS runs,
               row_number() OVER (PARTITION BY turns.pool
                                  ORDER BY turn, last_turn_at NULLS FIRST, created_at, job_id) AS place
        FROM turns JOIN limits AS l ON l.tier = turns.tier
        WHERE turn <= l.per_tenant
    ), chosen AS (
        SELECT tenant, job_id, tier, pool, place FROM ranked
        WHERE place <= runs - (SELECT count(*) FROM busy AS b WHERE b.pool = ranked.pool)
    ), served AS (
        UPDATE tenants AS t SET last_turn_at = statement_timestamp() + c.place * interval '1 microsecond'
        FROM (SELECT tenant, max(place) AS place FROM chosen GROUP BY tenant) AS c WHERE t.tenant = c.tenant
    )
    UPDATE jobs SET status = 'submitted', attempts = attempts + 1, submitted_at = now(), tier = chosen.tier,
                    pool = chosen.pool, started_at = NULL, heartbeat_at = NULL, finished_at = NULL, flow_run_id = NULL
    FROM chosen WHERE jobs.tenant = chosen.tenant AND jobs.job_id = chosen.job_id
    RETURNING jobs.*, chosen.place
    """
)

HANDED = text(
    """
    SELECT *, status = 'running' AND greatest(heartbeat_at, pg_postmaster_start_time())
                  < now() - make_interval(secs => :silent) AS silent,
           status = 'submitted' AND greatest(submitted_at, pg_postmaster_start_time())
                  < now() - make_interval(secs => :unstarted) AS late
    FROM jobs WHERE status IN ('submitted', 'running') AND flow_run_id IS NOT NULL ORDER BY job_id
    """
)

UNSUBMITTED = text(
    """
    SELECT * FROM jobs
    WHERE status = 'submitted' AND flow_run_id IS NULL
      AND submitted_at < now() - make_interval(secs => :unsubmitted) ORDER BY job_id
    """
)

DUE = text(
    """
    SELECT u.tenant, u.use_case, d.kind, d.schedule, s.due_at
    FROM use_cases AS u
    CROSS JOIN LATERAL (VALUES ('refresh', u.spec->>'schedule'), ('pull', u.spec->'pull'->>'schedule'))
        AS d (kind, schedule)
    LEFT JOIN schedules AS s ON s.tenant = u.tenant AND s.use_case = u.use_case AND s.kind = d.kind
    WHERE u.active AND d.schedule IS NOT NULL AND (s.due_at IS NULL OR s.due_at <= now())
    ORDER BY s.due_at, u.tenant, u.use_case, d.kind
    """
)

MOVE = text(
    """
    INSERT INTO schedules AS s (tenant, use_case, kind, due_at) VALUES (:tenant, :use_case, :kind, :following)
    ON CONFLICT (tenant, use_case, kind) DO UPDATE SET due_at = excluded.due_at
    WHERE s.due_at IS NOT DISTINCT FROM :due_at
    """
)

PLACE = text(
    """
    WITH waiting AS (
        SELECT j.tenant, j.job_id,
               row_number() OVER (PARTITION BY t.tier ORDER BY j.turn, j.created_at, j.job_id) AS place
        FROM (SELECT *, row_number() OVER (PARTITION BY tenant ORDER BY created_at, job_id) AS turn
              FROM jobs WHERE status = 'waiting' AND held IS NULL) AS j
        JOIN tenants AS t ON t.tenant = j.tenant
    ), pace AS (
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS seconds
        FROM (SELECT extract(epoch FROM finished_at - submitted_at) AS seconds FROM jobs
              WHERE status = 'done' AND tier = (SELECT tier FROM tenants WHERE tenant = :tenant)
              ORDER BY finished_at DESC LIMIT 50) AS recent
    )
    SELECT place, (SELECT seconds FROM pace) AS seconds FROM waiting WHERE tenant = :tenant AND job_id = :job_id
    """
)

WAITING = text(
    """
    SELECT t.tier, count(*) FILTER (WHERE j.status = 'waiting') AS waiting,
           count(*) FILTER (WHERE j.status IN ('submitted', 'running')) AS running,
           coalesce(extract(epoch FROM now() - min(j.created_at) FILTER (WHERE j.status = 'waiting')), 0)
               ::double precision AS oldest_s
    FROM jobs AS j JOIN tenants AS t ON t.tenant = j.tenant
    WHERE j.status IN ('waiting', 'submitted', 'running') AND j.held IS NULL GROUP BY t.tier ORDER BY t.tier
    """
)


HELD = text(
    """
    SELECT tenant, use_case, count(*) AS jobs, held FROM jobs WHERE status = 'waiting' AND held IS NOT NULL
    GROUP BY tenant, use_case, held ORDER BY tenant, use_case
    """
)


class Handed(NamedTuple):
    """A job that holds a slot. `silent`: it runs, but was not heard of lately; `unstarted`: it has not said for long
    that it works."""

    job: Job
    silent: bool
    unstarted: bool


class Place(NamedTuple):
    """Where a job stands in its tier's queue, from 1, and how long a job of that tier takes (None: not known yet)."""

    position: int
    seconds_each: float | None


class Due(NamedTuple):
    """A job that comes by itself and whose time has come, or was never worked out (`due_at` None)."""

    tenant: str
    use_case: str
    kind: str
    schedule: str
    due_at: datetime | None


@dataclass(frozen=True)
class Queue:
    """All tenants' jobs. Only the operator's processes have it; a tenant's run sees its own jobs alone."""

    cluster: Cluster

    def claim(self, tiers: Mapping[Tier, TierPolicy]) -> list[Job]:
        """Hands out jobs for the slots that are free, in the order of their turns. Of two calls at once, one waits."""
        limits = {
            "tiers": [tier.value for tier in tiers],
            "runs": [policy.runs for policy in tiers.values()],
            "per_tenant": [policy.runs_per_tenant for policy in tiers.values()],
        }

        def work(connection: Connection) -> list[Job]:
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.dispatch"))))
            rows = connection.execute(CLAIM, limits).mappings().all()
            ordered = sorted(rows, key=lambda row: (row["tier"], row["place"]))
            return [job_of(row) for row in ordered]

        return transact(self.cluster.operator_url, work)

    def submitted(self, job: Job, flow_run_id: str) -> None:
        """Notes the run in Prefect that an attempt became."""
        self._update(job, {"flow_run_id": flow_run_id})

    def give_back(self, job: Job, error: str) -> None:
        """The attempt is over, its work is not: the job waits again, until it was tried often enough."""
        self._update(job, given_back(error, at_once=True))

    def postpone(self, job: Job, error: str) -> None:
        """The attempt could not even begin: the job waits a while, and has as many tries left."""
        self._update(job, postponed(error, UNTAKEN_WAIT_S))

    def _update(self, job: Job, values: Mapping[str, object]) -> None:
        mine = (JOBS.c.tenant == job.tenant) & (JOBS.c.job_id == job.job_id) & (JOBS.c.attempts == job.attempts)
        open_ = JOBS.c.status.in_(["submitted", "running"])
        transact(self.cluster.operator_url, lambda connection: settle_job(connection, mine & open_, values))

    def end(self, job: Job, error: str) -> None:
        """The job is not wanted any more."""
        self._update(job, {"status": "failed", "finished_at": func.now(), "error": error})

    def handed_out(self) -> list[Handed]:
        """Jobs that became a run in Prefect and have not ended. While the database was away nobody could be heard, so
        the time since it came back is what counts."""
        limits = {"silent": SILENT_S, "unstarted": UNSTARTED_S}
        return transact(
            self.cluster.operator_url,
            lambda c: [Handed(job_of(row), row["silent"], row["late"]) for row in c.execute(HANDED, limits).mappings()],
        )

    def unsubmitted(self) -> list[Job]:
        """Claims that never became a run in Prefect, as far as the database knows: their dispatcher has died."""
        limit = {"unsubmitted": UNSUBMITTED_S}
        return transact(
            self.cluster.operator_url,
            lambda c: [job_of(row) for row in c.execute(UNSUBMITTED, limit).mappings()],
        )

    def job(self, tenant: str, job_id: int) -> Job | None:
        """A job of any tenant."""
        query = select(JOBS).where(JOBS.c.tenant == tenant, JOBS.c.job_id == job_id)
        row = transact(self.cluster.operator_url, lambda c: c.execute(query).mappings().one_or_none())
        return None if row is None else job_of(row)

    def due(self) -> list[Due]:
        """What is to come by itself and whose time has come, or was never worked out."""
        return transact(self.cluster.operator_url, lambda c: [Due(*row) for row in c.execute(DUE)])

    def schedule(self, due: Due, following: datetime) -> bool:
        """Asks for the job that is due, and notes when the next one will be; False when another has done so."""

        def work(connection: Connection) -> bool:
            moved = connection.execute(MOVE, {"following": following, **due._asdict()}).rowcount
            if moved and due.due_at is not None:
                request_job(connection, due.tenant, due.use_case, JobKind(due.kind), None, "schedule")
            return bool(moved)

        return transact(self.cluster.operator_url, work)

    def running_of(self, tenant: str) -> int:
        """How many jobs of a tenant were handed out and have not ended."""
        handed = (JOBS.c.tenant == tenant) & JOBS.c.status.in_(["submitted", "running"])
        query = select(func.count()).select_from(JOBS).where(handed)
        return transact(self.cluster.operator_url, lambda connection: connection.scalar(query)) or 0

    def place(self, job: Job) -> Place | None:
        """Where a waiting job stands; None when it does not wait."""
        values = {"tenant": job.tenant, "job_id": job.job_id}
        row = transact(self.cluster.operator_url, lambda c: c.execute(PLACE, values).one_or_none())
        return None if row is None else Place(row.place, None if row.seconds is None else float(row.seconds))

    def held(self) -> list[dict[str, object]]:
        """One row per use case whose jobs are not handed out: `tenant`, `use_case`, `jobs`, `held` (why)."""
        return transact(self.cluster.operator_url, lambda c: [dict(row) for row in c.execute(HELD).mappings()])

    def waiting(self) -> list[dict[str, object]]:
        """One row per tier that has open jobs: `tier`, `waiting`, `running` (slots in use), `oldest_s`."""
        return transact(self.cluster.operator_url, lambda c: [dict(row) for row in c.execute(WAITING).mappings()])
