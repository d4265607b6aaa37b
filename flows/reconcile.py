"""What Prefect believes of runs, and how it is put right: a run that nobody works on keeps its pool's slot for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flows.work import BEAT_S
from infra.database.queue import UNSTARTED_S, Handed, Queue
from tasks.domain.job import Job, JobKind, JobStatus

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

GRACE = timedelta(seconds=30)
"""A run outlives its job by the moment that it takes to report its state."""

REPORTED = timedelta(seconds=3)
"""A run that ended in Prefect has as long to say so in the database."""

UNSTARTED = timedelta(seconds=UNSTARTED_S)
"""A worker that has taken up a run has as long to get it to work."""

OCCUPYING = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
PAGE = 200


def state_of(client: SyncPrefectClient, flow_run_id: str | None) -> Any | None:
    """The state of a run; None where Prefect does not know it (any more)."""
    if flow_run_id is None:
        return None
    try:
        return client.read_flow_run(UUID(flow_run_id)).state
    except ObjectNotFound:
        return None


def crash(client: SyncPrefectClient, flow_run_id: str | None, why: str) -> None:
    """Sets a run that has not ended to Crashed, which frees its slot."""
    state = state_of(client, flow_run_id)
    if flow_run_id is not None and state is not None and not state.is_final():
        client.set_flow_run_state(UUID(flow_run_id), Crashed(message=why), force=True)


def handed_out(client: SyncPrefectClient, queue: Queue) -> Iterator[tuple[Handed, Any | None]]:
    """Jobs that hold a slot, each with the state of its run in Prefect; None where Prefect does not know it."""
    jobs = listened(queue)
    states: dict[str, Any] = {}
    for start in range(0, len(jobs), PAGE):
        ids = [UUID(str(each.job.flow_run_id)) for each in jobs[start : start + PAGE]]
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=PAGE)
        states |= {str(run.id): run.state for run in found}
    return ((each, states.get(str(each.job.flow_run_id))) for each in jobs)


def listened(queue: Queue) -> list[Handed]:
    """Jobs that hold a slot. Before any is called silent, all that live get the time to say so: the database may have
    been out of reach, or the whole machine may have slept."""
    jobs = queue.handed_out()
    if any(each.silent for each in jobs):
        time.sleep(BEAT_S + 1)
        jobs = queue.handed_out()
    return jobs


def put_right(client: SyncPrefectClient, queue: Queue, handed: Handed, state: Any | None) -> bool:
    """Frees the slot of a job whose run is over or dead, so that the job waits for another; whether it did so.

    A run that was cancelled in Prefect is not wanted any more, and its job has failed.
    """
    job = handed.job
    if state is None:
        if job.status is JobStatus.RUNNING and not handed.silent:
            return False  # Prefect has lost it, but it lives
        queue.give_back(job, "Prefect does not know its run any more")
    elif state.is_final():
        if not state.is_crashed() and _age(state) < REPORTED:
            return False  # its process is about to say how it ended; a crashed one is not
        if state.is_cancelled():
            queue.end(job, "cancelled by the operator")
            return False
        queue.give_back(job, f"its run has {str(state.name).lower()}: {state.message or ''}".rstrip(": ")[:500])
    elif handed.silent or (handed.unstarted and not state.is_scheduled() and _age(state) > UNSTARTED):
        # One that is still scheduled waits for its pool's worker, which takes it up when it is back; one that was taken
        # up just now has waited for that, and is about to begin.
        crash(client, job.flow_run_id, "its process is gone" if handed.silent else "it never began to work")
        queue.give_back(job, "the run's process is gone" if handed.silent else "the run never began")
    else:
        return False
    return True


def _age(state: Any) -> timedelta:
    """For how long a run has been in a state."""
    return datetime.now(UTC) - state.timestamp  # type: ignore[no-any-return]  # Prefect's own


def crash_leftovers(client: SyncPrefectClient) -> int:
    """Sets runs of no job (admission, dispatch, retention ...) that a machine left behind when it died to Crashed, and
    returns how many there were: each would hold its pool's slot for ever, and soon there would be none. To be called
    while no worker runs. Jobs' runs are left to `dead_runs` and `put_right`."""
    left = [
        str(run.id)
        for run in _occupying(client, FlowRunFilter())
        if run.work_pool_name is not None and run.parameters.get("job_id") is None
    ]
    for run_id in left:
        crash(client, run_id, "the platform was stopped without it")
    return len(left)


def dead_runs(client: SyncPrefectClient, queue: Queue) -> list[str]:
    """Runs that occupy a slot although their job has ended, or has gone to another run."""
    of_jobs = FlowRunFilter(tags=FlowRunFilterTags(any_=[f"stage:{kind}" for kind in JobKind]))
    now = datetime.now(UTC)
    dead = []
    for run in _occupying(client, of_jobs):
        job_id, attempt = run.parameters.get("job_id"), run.parameters.get("attempt")
        if job_id is None or now - (run.start_time or run.created or now) < GRACE:
            continue
        job = queue.job(run.parameters["tenant"], job_id)
        if job is None or not _works_for(run, attempt, job, now):
            dead.append(str(run.id))
    return dead


def _occupying(client: SyncPrefectClient, wanted: FlowRunFilter) -> list[Any]:
    """Those of these runs that have neither ended nor still wait to be taken up."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=OCCUPYING))
    wanted = wanted.model_copy(update={"state": state})
    found: list[Any] = []
    while page := client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=len(found)):
        found += page
    return found


def _works_for(run: Any, attempt: int, job: Job, now: datetime) -> bool:
    """Whether the run still does the job, or has ended it, or given it back, just now."""
    mine = job.attempts == attempt and job.flow_run_id in (None, str(run.id))
    if mine and job.status in (JobStatus.SUBMITTED, JobStatus.RUNNING):
        return True
    since = {JobStatus.WAITING: job.not_before, JobStatus.DONE: job.finished_at, JobStatus.FAILED: job.finished_at}
    left_at = since.get(job.status, job.submitted_at)
    return left_at is not None and now - left_at < GRACE
