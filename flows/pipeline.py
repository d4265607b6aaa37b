"""The whole story for one upload."""

from __future__ import annotations

from prefect import flow

from flows.artifacts import show_upload
from flows.events import announce_failed, announce_finished
from flows.failure import record_failure
from flows.ingestion import ingest
from flows.monitoring import monitor
from flows.operations import ask_again
from flows.promotion import promote
from flows.scoring import score
from flows.space import open_space
from flows.training import train
from flows.work import working
from tasks.budget import check_budget, check_stopped
from tasks.domain.names import Purpose
from tasks.domain.run import Upload, UploadStatus


@flow(
    name="pipeline",
    flow_run_name="{tenant} pipeline {upload_id:.8}",
    persist_result=False,
    on_failure=[record_failure, announce_failed],
    on_completion=[announce_finished],
)
def pipeline(tenant: str, upload_id: str, job_id: int | None = None, attempt: int = 1) -> None:
    """Takes one upload from file to result. Triggered by dispatch, when its turn has come; safe to run again.

    History trains and promotes, then scores the uploads that waited for a release; a scoring file is scored, or waits;
    actuals are compared with what was predicted.

    Args:
        tenant: the tenant's id.
        upload_id: the upload, as `orchard receipts` or the API names it.
        job_id: filled in by dispatch; without it, the run takes nobody's turn.
        attempt: filled in by dispatch.
    """
    space = open_space(tenant)
    with working(space, job_id, attempt):
        check_budget(space, space.records.upload(upload_id).use_case)
        upload = ingest(tenant, upload_id)
        if upload.status is not UploadStatus.REJECTED and react(tenant, upload):
            upload = space.records.update_upload(upload_id, status=UploadStatus.DONE, error=None)
        show_upload(space, upload)
    if job_id is not None:
        ask_again(space, upload_id)


def react(tenant: str, upload: Upload) -> bool:
    """What an upload that is in its table leads to; False when it waits for a release."""
    use_case = upload.use_case
    if upload.purpose is Purpose.SCORING:
        return bool(score(tenant, use_case, upload.upload_id))
    if upload.purpose is Purpose.ACTUALS:
        monitor(tenant, use_case, upload.upload_id)
        return True
    train_and_promote(tenant, use_case)
    score(tenant, use_case)
    return True


def train_and_promote(tenant: str, use_case: str) -> None:
    """Trains what changed, and promotes it. What a run finished that was stopped over a budget is promoted too; then
    raises `OverBudget`."""
    trained = train(tenant, use_case)
    promote(tenant, use_case, trained)
    check_stopped(open_space(tenant), trained)
