"""Which uploads a scoring run takes up, and which run that is: found without changing anything."""

from __future__ import annotations

from tasks.domain.names import Purpose, Stage
from tasks.domain.run import RunStatus, Upload, UploadStatus, run_key
from tasks.ports import Space


def chosen_uploads(space: Space, use_case_id: str, upload_id: str | None, again: bool) -> list[Upload]:
    """The one upload asked for, or all scoring uploads that wait; with `again`, those with open rows too, but for those
    whose dataset version is not kept any more: their last predictions stay."""
    if upload_id is not None:
        return [space.records.upload(upload_id)]
    oldest = space.table(space.tenant.use_case(use_case_id)).oldest() or 0
    return [
        upload
        for upload in space.records.uploads(use_case_id)
        if upload.purpose is Purpose.SCORING
        and (upload.status is UploadStatus.INGESTED or (again and upload.status is UploadStatus.DONE))
        and (not again or ((upload.dataset_version or 0) >= oldest and has_open_rows(space, upload)))
    ]


def has_open_rows(space: Space, upload: Upload) -> bool:
    """Whether some rows of a scoring upload still wait for their target."""
    table = space.table(space.tenant.use_case(upload.use_case))
    version = table.version()
    return version is not None and bool((table.partitions(version, upload_seq=upload.seq)["open"] > 0).any())


def scoring_key(space: Space, upload: Upload, release: int) -> str:
    """Idempotency key of the run that scores an upload of the table with a release."""
    return run_key(
        Stage.SCORING,
        upload.use_case,
        upload.upload_id,
        upload.dataset_version,
        release,
        superseded(space, upload, release),
    )


def superseded(space: Space, upload: Upload, release: int) -> int:
    """The upload's latest finished run when that was of another release, else 0: after a rollback, the old run of the
    release that serves again must not pass for a new one."""
    for run in space.records.runs(upload.use_case, Stage.SCORING):
        if run.upload_id == upload.upload_id and run.status is RunStatus.FINISHED:
            return 0 if run.release_version == release else run.run_id
    return 0
