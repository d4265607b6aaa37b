"""Beside the pipeline: actuals that arrive late are joined to what was predicted."""

from __future__ import annotations

from prefect import flow

from flows.events import announce_failed, announce_finished
from flows.failure import record_failure
from flows.space import open_space
from tasks.monitoring.steps import measure_health


@flow(
    name="monitoring",
    flow_run_name="{tenant}.{use_case} monitoring",
    persist_result=False,
    on_failure=[record_failure, announce_failed],
    on_completion=[announce_finished],
)
def monitor(tenant: str, use_case: str, upload_id: str) -> int:
    """Compares the predictions with the actuals of one upload, per partition. Triggered by the pipeline.

    Returns the id of the run; the view `model_health` shows its figures.

    Args:
        tenant: the tenant's id.
        use_case: the use case's id.
        upload_id: the upload of actuals.
    """
    space = open_space(tenant)
    with space.records.lock(use_case):
        return measure_health(space, use_case, upload_id)
