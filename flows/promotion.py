"""Stage 3: candidate vs champion vs naive baseline, per partition → a release, alias `champion`."""

from __future__ import annotations

from prefect import flow

from flows.failure import record_failure
from flows.space import open_space
from tasks.promotion.steps import compose_release, judge_candidates, switch


@flow(
    name="promotion", flow_run_name="{tenant}.{use_case} promotion", persist_result=False, on_failure=[record_failure]
)
def promote(tenant: str, use_case: str, training_run: int) -> int | None:
    """Lets the candidates of a training run through the use case's gate. Triggered by the pipeline.

    The alias moves in one step, after the release was loaded and tried; with manual approval the release waits as
    `challenger`. Returns the release's version, or None when no partition got a new model.
    """
    space = open_space(tenant)
    with space.records.lock(use_case):
        run, verdicts = judge_candidates(space, use_case, training_run)
        release = compose_release(space, run, training_run, verdicts)
        return switch(space, run, release, verdicts)
