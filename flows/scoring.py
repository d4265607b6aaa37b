"""Stage 4: find the release by tags → predict in mapped batches → lake table and SQL, atomically."""

from __future__ import annotations

from prefect import flow, unmapped

from flows.failure import record_failure
from flows.runner import threads, watch
from flows.space import open_space
from tasks.scoring.steps import plan_scoring, publish, score_batch


@flow(
    name="scoring",
    flow_run_name="{tenant}.{use_case} scoring",
    task_runner=threads(),
    persist_result=False,
    on_failure=[record_failure],
)
def score(tenant: str, use_case: str, dataset_version: int | None = None, upload_id: str | None = None) -> int | None:
    """Predicts the rows of one scoring upload or, without one, all rows that still wait for their target.

    Triggered by the pipeline, a schedule or a person. Readers see all rows of the run or none; every row comes out
    once.
    Returns the id of the run, or None when there was nothing to score.
    """
    space = open_space(tenant)
    with space.records.lock(use_case):
        run, batches = plan_scoring(space, use_case, dataset_version, upload_id)
        if run is None:
            return None
        watch(score_batch.map(unmapped(space), unmapped(run), batches))
        return publish(space, run)
