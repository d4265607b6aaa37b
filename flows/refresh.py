"""A use case brought up to date, without an upload."""

from __future__ import annotations

from prefect import flow

from flows.events import announce_failed, announce_finished
from flows.pipeline import train_and_promote
from flows.scoring import score
from flows.space import open_space
from flows.work import working


@flow(
    name="refresh",
    flow_run_name="{tenant}.{use_case} refresh",
    persist_result=False,
    on_failure=[announce_failed],
    on_completion=[announce_finished],
)
def refresh(tenant: str, use_case: str, job_id: int | None = None, attempt: int = 1) -> None:
    """Trains what changed, promotes it, and scores the open rows anew. Triggered by a schedule, or on demand.

    Args:
        tenant: the tenant's id.
        use_case: the use case's id.
        job_id: filled in by dispatch; without it, the run takes nobody's turn.
        attempt: filled in by dispatch.
    """
    with working(open_space(tenant), job_id, attempt):
        train_and_promote(tenant, use_case)
        score(tenant, use_case, again=True)
