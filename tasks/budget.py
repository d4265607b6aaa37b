"""Asking, before work and at each batch, whether a tenant may spend more."""

from __future__ import annotations

from tasks.domain.budget import OVER_BUDGET
from tasks.domain.errors import OverBudget
from tasks.domain.run import Run, RunStatus
from tasks.ports import Space

RAISED = f"{OVER_BUDGET} when its batches were due; it has been raised since: run it again, and it goes on"


def check_budget(space: Space, use_case: str, run: Run | None = None) -> None:
    """Raises `OverBudget` when a hard limit was reached."""
    if (excess := space.records.excess(use_case, run)) is not None:
        raise OverBudget(excess.message)


def check_begin(space: Space, use_case: str, known: Run | None) -> None:
    """Raises `OverBudget` before a run begins, or goes on; one that has finished costs nothing more. `known` is the run
    as an earlier attempt has left it."""
    if known is None or known.status is not RunStatus.FINISHED:
        check_budget(space, use_case, known)


def over_budget(space: Space, run: Run) -> bool:
    """Whether a run has to stop at this batch."""
    return space.records.excess(run.use_case, run) is not None


def check_stopped(space: Space, run_id: int) -> None:
    """Raises `OverBudget` when a run was stopped, with what it has left."""
    run = space.records.run(run_id)
    if run.status is RunStatus.STOPPED:
        left = f"{run.receipt.get('left')} of {run.receipt.get('partitions')} partitions are left"
        raise OverBudget(str(run.error), where=f"{run.stage} run {run.run_id}: {left}")


def why_stopped(space: Space, run: Run) -> str:
    """What a run that has batches left says of itself."""
    excess = space.records.excess(run.use_case, run)
    return excess.message if excess is not None else RAISED
