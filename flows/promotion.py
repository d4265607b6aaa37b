"""Stage 3: candidate vs champion vs naive baseline, per partition → a release, alias `champion`."""

from __future__ import annotations

from prefect import flow

from flows.auditing import tell_promotion
from flows.events import announce_failed, announce_finished
from flows.failure import record_failure
from flows.runner import whole
from flows.space import open_space
from tasks.promotion.steps import compose_release, judge_candidates, switch


@flow(
    name="promotion",
    flow_run_name="{tenant}.{use_case} promotion",
    persist_result=False,
    on_failure=[record_failure, announce_failed],
    on_completion=[announce_finished],
)
def promote(tenant: str, use_case: str, training_run: int) -> int | None:
    """Lets the candidates of a training run through the use case's gate. Triggered by the pipeline.

    The alias moves in one step, after the release was loaded and tried; with manual approval, and after a rollback, the
    release waits as `challenger`. Returns the release's version, or None when no partition got a new model.

    Args:
        tenant: the tenant's id.
        use_case: the use case's id.
        training_run: number of a finished training run, as `orchard receipts` lists it.
    """
    space = open_space(tenant)
    with space.records.lock(use_case):
        run, verdicts = judge_candidates(space, use_case, training_run)
        judged = whole(verdicts)
        release = compose_release(space, run, training_run, judged)
        version = switch(space, run, release, judged)
    if version is not None:
        tell_promotion(space, use_case, version, training_run)
    return version
