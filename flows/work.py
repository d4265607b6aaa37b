"""A flow that does a job: it says that it works, keeps saying so, and says how it ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect import tags

from flows.budgets import reviewed_budgets
from flows.events import postponed
from flows.metering import metered
from infra.space import TenantSpace
from tasks.domain.errors import Busy, OverBudget, Permanent
from tasks.domain.labels import Label, prefect_tags

logger = logging.getLogger(__name__)

BEAT_S = 3.0
BUSY_WAIT_S = 15.0


@contextmanager
def working(space: TenantSpace, job_id: int | None, attempt: int) -> Iterator[None]:
    """Does the block as this attempt of a job; without a job, it just does it.

    What fails for a passing reason waits for another turn; what cannot succeed has failed; what was told to stop waits
    again at once, unless a person cancelled it; what may not spend more, or finds another run (a person's, say) at work
    on its use case, waits until it may go on. At the end, whoever waits for the slot is let in. Raises `Superseded`
    when the job has gone to another attempt, `OverBudget` and `Busy` without a job.
    """
    labels = {Label.TENANT: space.tenant.id, Label.TIER: space.tenant.tier.value}
    with tags(*prefect_tags(labels)):  # of every run and task inside
        if job_id is None:
            with reviewed_budgets(), metered(space):
                yield
        else:
            with _as_job(space, job_id, attempt), metered(space, job_id):
                yield


@contextmanager
def _as_job(space: TenantSpace, job_id: int, attempt: int) -> Iterator[None]:
    records = space.records
    records.start_job(job_id, attempt, _flow_run_id())
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(space, job_id, attempt, stop), daemon=True, name="heartbeat")
    beating.start()
    try:
        yield
    except OverBudget as error:
        records.postpone(job_id, attempt, str(error))
        postponed.add(str(_flow_run_id()))
    except Busy as error:
        records.postpone(job_id, attempt, str(error), BUSY_WAIT_S)
        postponed.add(str(_flow_run_id()))
    except Permanent as error:
        records.end_job(job_id, attempt, str(error))
        raise
    except Exception as error:
        records.give_back(job_id, attempt, str(error) or type(error).__name__)
        raise
    except BaseException:
        if _cancelled():
            records.end_job(job_id, attempt, "cancelled by the operator")
        else:
            records.give_back(job_id, attempt, "the worker was stopped", at_once=True)
        raise
    else:
        records.end_job(job_id, attempt)
    finally:
        stop.set()
        beating.join()
        _let_others_in()


def _beat(space: TenantSpace, job_id: int, attempt: int, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        try:
            space.records.beat(job_id, attempt)
        except Exception as error:  # the next one may come through; without any, the run counts as dead
            logger.warning("job %s of %s could not say that it works: %s", job_id, space.tenant.id, error)


def _flow_run_id() -> str | None:
    from prefect.runtime import flow_run

    return str(flow_run.id) if flow_run.id else None


def _cancelled() -> bool:
    """Whether a person asked Prefect to cancel this run."""
    from prefect.client.orchestration import get_client

    from flows.reconcile import state_of

    with suppress(Exception), get_client(sync_client=True) as client:  # Prefect is away: then it was not a person
        state = state_of(client, _flow_run_id())
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


def _let_others_in() -> None:
    from flows.dispatch import dispatch

    try:
        dispatch()
    except Exception as error:  # the scheduled dispatch does it a few seconds later
        logger.warning("the next jobs were not dispatched: %s", error)
