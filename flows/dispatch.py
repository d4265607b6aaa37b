"""Who runs next, and who is helped up: jobs become runs in Prefect. The database decides, Prefect executes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cronsim import CronSim, CronSimError
from prefect import flow
from prefect.client.orchestration import get_client

from flows.budgets import review_in_passing
from flows.reconcile import crash, dead_runs, handed_out, put_right
from infra.database.cluster import connected_cluster
from infra.database.queue import Queue
from infra.definitions import load_tiers
from infra.settings import Settings, load_settings
from tasks.domain.job import Job, JobKind, deployment_name
from tasks.domain.labels import Label, job_variables, prefect_tags
from tasks.domain.tenant import Tier, TierPolicy

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

logger = logging.getLogger(__name__)


class Healed(NamedTuple):
    """What one round found: jobs that were given back, claims submitted late, runs that held a slot for nothing, and
    schedules whose time had come."""

    given_back: int = 0
    submitted_late: int = 0
    dead_runs: int = 0
    due: int = 0


def dispatch(settings: Settings | None = None) -> list[Job]:
    """Hands out waiting jobs for the slots that are free, and submits each to its tier's work pool; returns them.

    Called when a job is asked for, when one ends, and every few seconds. Safe to run twice at once, and to be cut off:
    a claim that was not submitted is found by `heal`. What Prefect does not take waits again. Jobs of whoever has spent
    a budget stay where they are.
    """
    settings = settings or load_settings()
    queue = Queue(connected_cluster(settings))
    tiers = load_tiers(settings.tiers_file)
    review_in_passing(settings)
    jobs = queue.claim(tiers)
    if jobs:
        with get_client(sync_client=True) as client:
            for job in jobs:
                submit(client, queue, job, tiers)
    return jobs


def submit(client: SyncPrefectClient, queue: Queue, job: Job, tiers: dict[Tier, TierPolicy]) -> None:
    """Makes a claimed job a run of its kind's deployment. The key makes a second call find the first one's run."""
    policy = tiers[Tier(str(job.tier))]
    labels = labels_of(job)
    try:
        deployment = client.read_deployment_by_name(f"{job.kind}/{deployment_name(job.kind, str(job.pool))}")
        run = client.create_flow_run_from_deployment(
            deployment.id,
            parameters=parameters_of(job),
            name=f"{job.tenant} {job.use_case} {job.kind} {job.job_id}",
            tags=prefect_tags(labels),
            idempotency_key=job.key,
            job_variables=job_variables(
                labels,
                {
                    "ORCHARD_WORKERS": str(policy.workers),
                    "ORCHARD_MEMORY_MB": str(policy.run_memory_mb(job.upload_bytes)),
                },
            ),
        )
    except Exception as error:  # whatever keeps Prefect from taking it, the job must not be lost
        logger.warning("job %s could not be submitted: %s", job.key, error)
        queue.postpone(job, f"Prefect did not take it: {type(error).__name__}: {error}")
    else:
        queue.submitted(job, str(run.id))


def labels_of(job: Job) -> dict[Label, str]:
    """What is said of a job wherever it is seen or paid for. The stage is its kind's, as in the deployment's tags."""
    return {
        Label.TENANT: job.tenant,
        Label.USE_CASE: job.use_case,
        Label.STAGE: job.kind.value,
        Label.TIER: str(job.tier),
    }


def parameters_of(job: Job) -> dict[str, Any]:
    """Parameters of the flow that does the job."""
    what: dict[str, Any] = {"upload_id": job.upload_id} if job.upload_id else {"use_case": job.use_case}
    if job.kind is JobKind.SCORING:
        what["again"] = True
    return {"tenant": job.tenant, **what, "job_id": job.job_id, "attempt": job.attempts}


def heal(settings: Settings | None = None) -> Healed:
    """Finds what was left lying: claims that were never submitted, runs that never began or whose process is gone, runs
    in Prefect that hold a slot for nothing, and schedules whose time has come."""
    settings = settings or load_settings()
    queue = Queue(connected_cluster(settings))
    tiers = load_tiers(settings.tiers_file)
    with get_client(sync_client=True) as client:
        given_back = sum(put_right(client, queue, handed, state) for handed, state in handed_out(client, queue))
        late = queue.unsubmitted()
        for job in late:
            submit(client, queue, job, tiers)
        zombies = dead_runs(client, queue)
        for run_id in zombies:
            crash(client, run_id, "its job has ended or gone to another run")
    return Healed(given_back, len(late), len(zombies), start_due(queue))


def start_due(queue: Queue) -> int:
    """Asks for the jobs whose time has come; returns how many. A schedule that cannot be read holds up no other."""
    started = 0
    for each in queue.due():
        try:
            started += queue.schedule(each, following(each.schedule, datetime.now(UTC), each.due_at))
        except CronSimError as error:
            logger.warning("schedule %r of %s.%s cannot be read: %s", each.schedule, each.tenant, each.use_case, error)
    return started


def following(schedule: str, now: datetime, due_at: datetime | None = None) -> datetime:
    """The next time, in UTC, that a cron expression names, and never the one that is due: the database, whose clock may
    be ahead of this machine's, says that it has come."""
    return next(CronSim(schedule, max(now, due_at or now)))


@flow(name="dispatch", flow_run_name="dispatch", persist_result=False)
def dispatch_jobs() -> dict[str, int]:
    """Hands out waiting jobs, picks up what was left lying, and starts what is due.

    Triggered every 15 seconds, and by a pipeline run that crashed or failed. Whoever asks for a job or ends one
    dispatches by itself; this finds what was missed. Safe to run twice at once.
    """
    healed = heal()
    return {**healed._asdict(), "submitted": len(dispatch())}
