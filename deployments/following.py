"""Waiting, at a terminal, for what the platform does in its own time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deployments.cli.output import errors
from deployments.progress import UploadProgress, UploadState, upload_progress
from infra.database.queue import Queue
from infra.space import TenantSpace

LOOK_S = 0.5
OPEN = (UploadState.QUEUED, UploadState.RUNNING)


def follow_uploads(space: TenantSpace, queue: Queue, upload_ids: Sequence[str]) -> None:
    """Shows a bar per upload that waits or runs, and returns when none does. Ctrl-C ends the watching, not the work."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bars: dict[str, TaskID] = {}
        while True:
            found = [upload_progress(space, queue, space.records.upload(each)) for each in upload_ids]
            still = [each for each in found if each.status in OPEN]
            for each in still:
                if each.upload_id not in bars:
                    bars[each.upload_id] = progress.add_task("", total=None)
                working = each.progress
                progress.update(
                    bars[each.upload_id],
                    description=f"{space.tenant.id} {each.use_case} {where(each)}",
                    completed=working.done_batches if working else 0,
                    total=(working.batches or None) if working else None,
                )
            for gone in bars.keys() - {each.upload_id for each in still}:
                progress.update(bars[gone], visible=False)
            if not still:
                return
            time.sleep(LOOK_S)  # the work is elsewhere: the database is asked


def where(upload: UploadProgress) -> str:
    """Where an upload stands, in a few words."""
    if upload.queue is not None and upload.queue.position:
        wait_s = upload.queue.expected_wait_s
        return f"queued, place {upload.queue.position}" + (f", about {wait_s:.0f} s" if wait_s is not None else "")
    if upload.progress is not None:
        return f"{upload.progress.stage} {upload.progress.done_batches}/{upload.progress.batches}"
    return "starting" if upload.status is UploadState.QUEUED else str(upload.status).replace("_", " ")


def shown_upload(upload: UploadProgress) -> dict[str, object]:
    """A row for a table."""
    return {
        "upload": upload.upload_id[:8],
        "use_case": upload.use_case,
        "purpose": upload.purpose.value,
        "file": upload.filename,
        "status": where(upload),
        "rows": upload.rows.read or None,
        "attempts": upload.attempts,
        "error": (upload.error or "").split("; ")[0],
    }
