"""What operators and upload hooks do outside a run: admit a file, decide which release serves, look at quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.database.audit import Witness
from infra.space import TenantSpace
from tasks.domain.errors import NotFound
from tasks.domain.job import JobKind
from tasks.domain.names import Purpose
from tasks.domain.run import Upload, UploadStatus
from tasks.ingestion import admission, quarantine
from tasks.ports import Space
from tasks.promotion import release


def admit(space: Space, use_case: str, purpose: Purpose, path: Path, witness: Witness) -> tuple[Upload, bool]:
    """Stores and records a file; returns the upload, and whether it is new. The audit has one entry of it, however
    often it is handed in; an attempt that broke off before that is told by the next one."""
    upload, new = admission.admit(space, use_case, purpose, path)
    witness.record(
        "upload",
        "done",
        tenant=space.tenant.id,
        once=f"upload/{space.tenant.id}/{upload.upload_id}",
        upload_id=upload.upload_id,
        use_case=use_case,
        purpose=purpose,
        size_bytes=upload.size_bytes,
    )
    return upload, new


def hand_in(
    space: TenantSpace, use_case: str, purpose: Purpose, path: Path, by: str, witness: Witness
) -> tuple[Upload, bool]:
    """Stores and records a file, and asks for its job, which then waits for its turn; `dispatch` sees to that. Returns
    the upload, and whether it is new. Of an upload that is done already, nothing is asked again.

    Whoever hands in a file hands it in again when this did not return: a cut-off attempt leaves nothing to clean up.
    """
    upload, new = admit(space, use_case, purpose, path, witness)
    if upload.status is not UploadStatus.DONE:
        space.records.request(use_case, JobKind.PIPELINE, upload.upload_id, by=by, upload_bytes=upload.size_bytes)
    return upload, new


def ask_again(space: TenantSpace, upload_id: str) -> None:
    """Asks for another turn of an upload whose job has just ended, where it was rejected and, before its job had ended,
    handed in again: it found its job at work, and asked for no other."""
    upload = space.records.upload(upload_id)
    if upload.status is UploadStatus.RECEIVED:
        space.records.request(upload.use_case, JobKind.PIPELINE, upload_id, by="upload", upload_bytes=upload.size_bytes)


def waiting_uploads(space: Space, use_cases: Sequence[str]) -> list[Upload]:
    """Uploads that were stored or cut off, in the order of arrival. Scoring files that wait for a release are not among
    them: they are scored when there is one."""
    return [
        upload
        for upload in space.records.uploads()
        if upload.use_case in use_cases
        and (
            upload.status is UploadStatus.RECEIVED
            or (upload.status is UploadStatus.INGESTED and upload.purpose is not Purpose.SCORING)
        )
    ]


def approve(space: Space, use_case: str, witness: Witness) -> int:
    """Lets the release that waits as challenger serve; returns its version. Raises `NotFound`."""
    space.tenant.use_case(use_case)
    with space.records.lock(use_case):
        version = space.registry.find(use_case, "challenger")
        if version is None:
            raise NotFound("no release waits for approval", hint=f"orchard releases list {space.tenant.id} {use_case}")
        with _told(witness, "release.approve", space, use_case, version):
            release.make_champion(space, use_case, version)
    return version


def roll_back(space: Space, use_case: str, to: int | None, witness: Witness) -> int:
    """Lets an earlier release serve again; returns its version. Raises `NotFound`, `Tampered`."""
    space.tenant.use_case(use_case)
    with space.records.lock(use_case):
        version = release.earlier(space, use_case, to)
        with _told(witness, "release.rollback", space, use_case, version):
            release.make_champion(space, use_case, version)
    return version


def releases_wait(space: Space, use_case: str) -> bool:
    """Whether what the gate promotes waits for approval."""
    serving = space.registry.find(use_case, "champion")
    return release.waits_for_approval(space, space.tenant.use_case(use_case), serving)


@contextmanager
def _told(witness: Witness, action: str, space: Space, use_case: str, version: int) -> Iterator[None]:
    """The entry comes first, so that no release serves by an act that nobody can find; if the act then fails, an entry
    says so."""
    facts: dict[str, Any] = {"use_case": use_case, "release": version}
    witness.record(action, "done", tenant=space.tenant.id, **facts)
    try:
        yield
    except Exception:
        witness.record(action, "failed", tenant=space.tenant.id, **facts)
        raise


def quarantined(space: Space, use_case: str, upload_id: str, limit: int) -> list[dict[str, object]]:
    """Rows that an upload left in quarantine: line, rule, the raw row."""
    return quarantine.read_quarantine(space.files, use_case, upload_id, limit)
