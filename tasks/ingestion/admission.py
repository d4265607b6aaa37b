"""Admission: a file that arrived becomes a stored, recorded upload. The same content twice is one upload."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tasks.domain.errors import NotFound, UnreadableUpload
from tasks.domain.names import Purpose, upload_id
from tasks.domain.run import Upload, UploadStatus
from tasks.ports import Space

IN_TABLE = (UploadStatus.INGESTED, UploadStatus.DONE)
"""An upload whose file has served; it may be gone."""


def admit(space: Space, use_case: str, purpose: Purpose, path: Path) -> tuple[Upload, bool]:
    """Stores and records a local file; returns the upload, and whether it is new. A rejected one is tried again.

    The file is stored before it is recorded, so a recorded upload has its file until its rows are in the table; an
    attempt that is cut off in between leaves a file that the next attempt overwrites with the same content. Raises
    `NotFound`, `UnreadableUpload`, and `Busy` while the tenant moves or leaves.
    """
    space.tenant.use_case(use_case)
    if not path.is_file():
        raise UnreadableUpload("there is no such file", where=str(path), hint="give the path of one file")
    size = path.stat().st_size
    if size > space.policy.max_upload_bytes:
        raise UnreadableUpload(
            "the file is too large for this tier",
            where=str(path),
            expected=f"at most {space.policy.max_upload_bytes:,} bytes ({space.tenant.tier})",
            found=f"{size:,} bytes",
            hint="split the file, or move the tenant to a higher tier",
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    identity = upload_id(space.tenant.id, use_case, purpose, digest)
    with space.records.taking_in():
        return _take_in(space, use_case, purpose, identity, path, size, digest)


def _take_in(
    space: Space, use_case: str, purpose: Purpose, identity: str, path: Path, size: int, digest: str
) -> tuple[Upload, bool]:
    if (known := _known(space, identity)) is not None and known.status in IN_TABLE:
        return known, False
    _store(space, use_case, identity, path)
    upload, new = space.records.add_upload(use_case, purpose, identity, path.name, size, digest)
    if upload.status is UploadStatus.REJECTED:  # handed in again, perhaps under a contract that fits now
        upload = space.records.update_upload(identity, status=UploadStatus.RECEIVED, error=None)
        _store(space, use_case, identity, path)  # its end may have removed the file just now
    drop_personal_file(space, upload)
    return upload, new


def drop_personal_file(space: Space, upload: Upload) -> None:
    """Removes the file of an upload that is in its table, or rejected, if it holds personal data. Safe to repeat."""
    if upload.status is UploadStatus.RECEIVED or not space.tenant.use_case(upload.use_case).contract.personal:
        return
    if space.records.upload(upload.upload_id).status is not UploadStatus.RECEIVED:  # unless it was handed in again
        space.files.delete(stored_path(upload.use_case, upload.upload_id))


def _known(space: Space, identity: str) -> Upload | None:
    try:
        return space.records.upload(identity)
    except NotFound:
        return None


def _store(space: Space, use_case: str, identity: str, path: Path) -> None:
    stored = stored_path(use_case, identity)
    if not space.files.exists(stored):
        space.files.put(stored, path)


def stored_path(use_case: str, identity: str) -> str:
    """Where an upload's bytes are kept: the name that the tenant gave the file never becomes a path."""
    return f"uploads/{use_case}/{identity}"
