"""The whole story for one upload."""

from __future__ import annotations

from prefect import flow

from flows.failure import record_failure
from flows.ingestion import ingest
from flows.monitoring import monitor
from flows.promotion import promote
from flows.scoring import score
from flows.space import open_space
from flows.training import train
from tasks.domain.names import Purpose
from tasks.domain.run import UploadStatus


@flow(
    name="pipeline", flow_run_name="{tenant} pipeline {upload_id:.8}", persist_result=False, on_failure=[record_failure]
)
def pipeline(tenant: str, upload_id: str) -> None:
    """Takes one upload from file to result. Triggered by an admitted upload; safe to run again, and resumes.

    History trains and promotes, then scores the uploads that waited for a release; a scoring file is scored, or waits;
    actuals are compared with what was predicted.
    """
    upload = ingest(tenant, upload_id)
    if upload.status is UploadStatus.REJECTED:
        return
    use_case = upload.use_case
    if upload.purpose is Purpose.HISTORY:
        run_id = train(tenant, use_case)
        promote(tenant, use_case, run_id)
        score(tenant, use_case)
    elif upload.purpose is Purpose.SCORING:
        if not score(tenant, use_case, upload_id):
            return
    else:
        monitor(tenant, use_case, upload_id)
    open_space(tenant).records.update_upload(upload_id, status=UploadStatus.DONE, error=None)
