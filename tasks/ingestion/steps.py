"""Ingestion's Prefect task: load, check, merge, record."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.domain.errors import NotFound, Permanent
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Run, Upload, UploadStatus, run_key
from tasks.ingestion.admission import drop_personal_file, stored_path
from tasks.ingestion.ingest import ingest
from tasks.personal import discreetly
from tasks.ports import Space


@task(cache_policy=NO_CACHE, persist_result=False)
def ingest_upload(space: Space, upload_id: str) -> Upload:
    """Takes one upload into its table. A mistake in the file rejects the upload; it does not fail the run. Once it is
    settled, either way, a file with personal data goes."""
    upload = space.records.upload(upload_id)
    if upload.status is UploadStatus.RECEIVED:
        with discreetly(space.tenant.use_case(upload.use_case).contract):
            upload = _settled(space, upload)
    drop_personal_file(space, upload)
    return upload


def _settled(space: Space, upload: Upload) -> Upload:
    """The upload, ingested or rejected."""
    records = space.records
    key = run_key(Stage.INGESTION, upload.use_case, upload.upload_id)
    run = records.open_run(Stage.INGESTION, upload.use_case, key, upload_id=upload.upload_id)
    try:
        return _ingest(space, upload, run)
    except Permanent as error:
        records.fail_run(run, str(error))
        return records.update_upload(upload.upload_id, status=UploadStatus.REJECTED, error=str(error))


def _measured(space: Space, upload: Upload) -> list[int]:
    """The numbers of the use case's other actuals; only actuals are compared with them."""
    if upload.purpose is not Purpose.ACTUALS:
        return []
    others = space.records.uploads(upload.use_case)
    return [each.seq for each in others if each.purpose is Purpose.ACTUALS and each.seq != upload.seq]


def _ingest(space: Space, upload: Upload, run: Run) -> Upload:
    use_case = space.tenant.use_case(upload.use_case)
    stored = stored_path(use_case.id, upload.upload_id)
    if not space.files.exists(stored):
        raise NotFound(
            "the file of this upload is not kept any more", where=upload.filename, hint="hand the same file in again"
        )
    staging = space.table(use_case).stage(upload, _measured(space, upload))
    try:
        with space.scratch("ingestion") as scratch, space.files.local(stored, scratch) as path:
            validator = space.validator(use_case, upload)
            done = ingest(path, use_case, upload, validator, staging, space.files, space.pseudonyms, scratch)
    finally:
        staging.discard()
    receipt = done.receipt
    facts = {"rules": dict(done.rules), "quarantined_partitions": list(done.quarantined_partitions)}
    space.records.finish_run(run, {**receipt.model_dump(), **facts, "dataset_version": done.dataset_version})
    return space.records.update_upload(
        upload.upload_id,
        status=UploadStatus.INGESTED,
        dataset_version=done.dataset_version,
        rows_read=receipt.read,
        rows_accepted=receipt.accepted,
        rows_quarantined=receipt.quarantined,
        rows_duplicate=receipt.duplicate,
        report=done.report,
    )
