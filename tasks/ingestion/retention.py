"""What ingestion leaves behind: raw files, quarantine, reports, old versions of the table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tasks.domain.retention import Horizon, Removed
from tasks.domain.run import Upload, UploadStatus
from tasks.domain.use_case import UseCase
from tasks.retention import AgingSpace, StoredFile, oldest_needed

LEFT_OVER = timedelta(days=1)
"""A file of no upload is on its way for a moment; after so long, whoever stored it was cut off."""

FOLDERS = {"uploads": "raw files", "quarantine": "quarantine files", "reports": "reports"}
"""What is kept of an upload, by the folder that its file, or its own folder, is in."""


def remove_old_files(space: AgingSpace, use_case: UseCase, horizon: Horizon, dry_run: bool) -> list[Removed]:
    """Removes what is kept of old uploads. Those that wait keep their files; the raw file of one with personal data
    goes as soon as it is settled, should whoever settled it have been cut off."""
    uploads = {upload.upload_id: upload for upload in space.records.uploads(use_case.id)}
    found = []
    for folder, what in FOLDERS.items():
        promptly = folder == "uploads" and bool(use_case.contract.personal)
        goes = _goes(horizon, promptly)
        old = [
            file for file in space.files.stored(f"{folder}/{use_case.id}") if goes(uploads.get(_upload_of(file)), file)
        ]
        for file in old if not dry_run else ():
            if folder == "reports" and (upload := uploads.get(_upload_of(file))) is not None:
                space.records.update_upload(upload.upload_id, report=None)
            space.files.delete(f"{folder}/{use_case.id}/{file.path.partition('/')[0]}")
        found.append(Removed(what, len(old), sum(file.size_bytes for file in old)))
    return found


def _goes(horizon: Horizon, promptly: bool) -> Callable[[Upload | None, StoredFile], bool]:
    def goes(upload: Upload | None, file: StoredFile) -> bool:
        if upload is None:
            return file.modified < horizon.now - LEFT_OVER
        return upload.status is not UploadStatus.RECEIVED and (promptly or upload.received_at < horizon.cutoff)

    return goes


def _upload_of(file: StoredFile) -> str:
    return file.path.partition("/")[0].removesuffix(".parquet")


def forget_old_versions(space: AgingSpace, use_case: UseCase, horizon: Horizon, dry_run: bool) -> list[Removed]:
    """Removes versions of the table that were replaced before the cutoff, and the data that only they have."""
    oldest = oldest_needed(space, use_case, horizon.cutoff)
    return [] if oldest is None else space.table(use_case).forget(oldest, dry_run)
