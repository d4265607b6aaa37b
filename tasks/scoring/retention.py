"""What scoring leaves behind: predictions that were superseded, or never published."""

from __future__ import annotations

from tasks.domain.names import Stage
from tasks.domain.retention import Horizon, Removed
from tasks.domain.run import RunStatus
from tasks.domain.use_case import UseCase
from tasks.retention import AgingSpace


def remove_old_scores(space: AgingSpace, use_case: UseCase, horizon: Horizon, dry_run: bool) -> list[Removed]:
    """Removes predictions that were superseded before the cutoff, in SQL and on the lake, and those of runs that began
    before it and were never finished: one that is taken up after all begins anew."""
    records = space.records
    unfinished = [
        run
        for run in records.runs(use_case.id, Stage.SCORING)
        if run.status is not RunStatus.FINISHED and records.planned(run)
    ]
    abandoned = {run.run_id for run in unfinished if run.started_at < horizon.cutoff}
    superseded = records.superseded_scores(use_case.id, horizon.cutoff)
    rows = records.remove_scores([*superseded, *abandoned], dry_run)
    resumable = {run.run_id for run in unfinished} - abandoned
    return [
        Removed("prediction rows", rows),
        *space.predictions(use_case).forget(horizon.cutoff, resumable, dry_run),
    ]
