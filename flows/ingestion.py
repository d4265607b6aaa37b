"""Stage 1: validate → quarantine bad rows → merge into the use case's table → a dataset version."""

from __future__ import annotations

from prefect import flow

from flows.events import announce_failed, announce_finished
from flows.failure import record_failure
from flows.space import open_space
from tasks.domain.run import Upload
from tasks.ingestion.steps import ingest_upload


@flow(
    name="ingestion",
    flow_run_name="{tenant} ingestion {upload_id:.8}",
    persist_result=False,
    on_failure=[record_failure, announce_failed],
    on_completion=[announce_finished],
)
def ingest(tenant: str, upload_id: str) -> Upload:
    """Brings one admitted upload into its use case's table. Triggered by the pipeline.

    Exactly once per upload: a second run finds the commit of the first. Returns the upload, ingested or rejected.

    Args:
        tenant: the tenant's id.
        upload_id: the upload, as `orchard receipts` or the API names it.
    """
    space = open_space(tenant)
    upload = space.records.upload(upload_id)
    with space.records.lock(upload.use_case):
        return ingest_upload(space, upload_id)
