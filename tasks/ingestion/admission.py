"""Admission: a file that arrived becomes a stored, recorded upload. The same content twice is one upload."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tasks.domain.errors import UnreadableUpload
from tasks.domain.names import Purpose, upload_id
from tasks.domain.run import Upload, UploadStatus
from tasks.ports import Space


def admit(space: Space, use_case: str, purpose: Purpose, path: Path) -> tuple[Upload, bool]:
    """Stores and records a local file; returns the upload, and whether it is new. A rejected one is tried again.

    The file is stored before it is recorded, so a recorded upload always has its file; an attempt that is cut off in
    between leaves a file that the next attempt overwrites with the same content. Raises `NotFound`, `UnreadableUpload`.
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
    stored = stored_path(use_case, identity)
    if not space.files.exists(stored):
        space.files.put(stored, path)
    upload, new = space.records.add_upload(use_case, purpose, identity, path.name, size, digest)
    if upload.status is UploadStatus.REJECTED:  # handed in again, perhaps under a contract that fits now
        upload = space.records.update_upload(identity, status=UploadStatus.RECEIVED, error=None)
    return upload, new


def stored_path(use_case: str, identity: str) -> str:
    """Where an upload's bytes are kept: the name that the tenant gave the file never becomes a path."""
    return f"uploads/{use_case}/{identity}"
