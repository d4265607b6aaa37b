"""`/v1/{use_case}/uploads` and `/v1/uploads`: files come in, and are followed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as InPath
from pydantic import Field, StringConstraints
from starlette.concurrency import run_in_threadpool

from deployments.api.auth import ReadersSpace, Uploader, UploadersSpace
from deployments.api.bodies import save_body
from deployments.api.parameters import UseCaseInPath
from deployments.api.problems import EMPTY, INVALID, NOT_RAW, Problem, documented, public_text
from deployments.api.service import Service, TheService
from deployments.progress import UploadProgress, UploadState, upload_progress
from flows.operations import hand_in
from infra.database.cluster import connected_cluster
from infra.database.operator import Operator
from infra.scratch import scratch
from infra.settings import Settings
from infra.space import TenantSpace
from tasks.domain.contract import Frozen
from tasks.domain.errors import Busy, NotFound, OrchardError
from tasks.domain.names import Purpose, UseCaseId
from tasks.domain.run import Upload
from tasks.domain.tenant import TenantState

router = APIRouter(tags=["uploads"])

MAX_FILENAME_BYTES = 200
UNNAMED = "upload"

UploadId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{32}$"),
    InPath(description="`upload_id` of a file that was handed in.", examples=["0b9f6a1c2d3e4f5061728394a5b6c7d8"]),
]

RAW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file itself: CSV, Parquet or JSON lines, compressed or not.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class UploadList(Frozen):
    """Status documents, the newest upload first."""

    uploads: tuple[UploadProgress, ...] = Field(description="at most `limit`")


@router.post(
    "/v1/{use_case}/uploads/{purpose}",
    status_code=202,
    summary="Hand in a file",
    response_description="It is stored, and waits for its turn.",
    responses={
        200: {"model": UploadProgress, "description": "This content was known: it is the same upload."},
        **documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=RAW_BODY,
)
async def receive(
    request: Request,
    response: Response,
    service: TheService,
    caller: Uploader,
    space: UploadersSpace,
    use_case: UseCaseInPath,
    purpose: Annotated[Purpose, InPath(description="What the file is for.")],
    filename: Annotated[str | None, Query(description="The file's name, for people.", examples=["sales.csv"])] = None,
    x_filename: Annotated[str | None, Header(description="The same, as a header.", examples=["sales.csv"])] = None,
) -> UploadProgress:
    """The body is the raw file, whatever its content type: `curl --data-binary @sales.csv`.

    Safe to repeat: the same content for the same purpose is one upload. An upload that is cut off leaves nothing
    behind. `purpose` is `history` (with the target), `scoring` (without) or `actuals` (row key and target).
    """
    space.tenant.use_case(use_case)
    name = _name_of(filename if filename is not None else _decoded(x_filename or ""))
    if request.headers.get("Content-Type", "").startswith("multipart/"):
        raise Problem(NOT_RAW, "send the file itself and no form: curl --data-binary @FILE, not -F")
    async with _incoming(service.settings, space) as folder:
        path = folder / name
        limit = space.policy.max_upload_bytes
        if not await save_body(request, path, limit, f"an upload of a {space.tenant.tier} tenant"):
            raise Problem(EMPTY, "the body has no bytes")

        def work() -> tuple[Upload, bool]:
            try:
                return hand_in(space, use_case, purpose, path, "api", service.witness(caller.actor))
            except OrchardError:
                _check_stays(service.settings, space.tenant.id)
                raise

        upload, new = await run_in_threadpool(work)
    service.nudge()
    response.status_code = 202 if new else 200
    return await run_in_threadpool(_document, service, space, upload)


@router.get("/v1/uploads", summary="The latest uploads", responses=documented(401, 403, 404, 422, 429, 503))
def latest(
    service: TheService,
    space: ReadersSpace,
    use_case: Annotated[UseCaseId | None, Query(description="All use cases without it.", examples=["demand"])] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="So many at most.", examples=[50])] = 50,
) -> UploadList:
    """Status documents of your latest uploads, the newest first."""
    if use_case is not None:
        space.tenant.use_case(use_case)
    found = space.records.uploads(use_case)[: -limit - 1 : -1]
    return UploadList(uploads=tuple(_document(service, space, upload) for upload in found))


@router.get("/v1/uploads/{upload_id}", summary="Follow an upload", responses=documented(401, 403, 404, 422, 429, 503))
def follow(service: TheService, space: ReadersSpace, upload_id: UploadId) -> UploadProgress:
    """Where an upload stands: its place in the queue, its stage, what became of its rows, and why it was rejected."""
    return _document(service, space, space.records.upload(upload_id))


def _document(service: Service, space: TenantSpace, upload: Upload) -> UploadProgress:
    progress = upload_progress(space, service.queue(), upload)
    shown = public_text(progress.error, whole=progress.status is UploadState.REJECTED)
    return progress.model_copy(update={"error": shown})


def _check_stays(settings: Settings, tenant: str) -> None:
    """Raises `Busy` when the tenant leaves: while a long body came, its login and its folders may have gone."""
    try:
        state = Operator(connected_cluster(settings)).state(tenant)
    except NotFound:
        state = TenantState.LEAVING
    if state is TenantState.LEAVING:
        raise Busy("the tenant leaves: nothing is taken in any more") from None


@asynccontextmanager
async def _incoming(settings: Settings, space: TenantSpace) -> AsyncIterator[Path]:
    """A folder for one file on its way in, gone afterwards; what a killed API left goes with the next upload."""
    folder = scratch(settings.home / "scratch" / "incoming", space.tenant.id)
    path = await run_in_threadpool(folder.__enter__)
    try:
        yield path
    finally:
        await run_in_threadpool(folder.__exit__, None, None, None)


def _decoded(header: str) -> str:
    """A header as text: HTTP takes its bytes for Latin-1, senders mostly mean UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


def _name_of(text: str) -> str:
    """The last part of a file's name, whichever system's separators it has. Raises `Problem`."""
    name = re.split(r"[/\\]", text)[-1].strip()
    if name in ("", ".", ".."):
        return UNNAMED
    if not name.isprintable() or len(name.encode(errors="replace")) > MAX_FILENAME_BYTES:
        raise Problem(INVALID, f"the file name must be printable, and have {MAX_FILENAME_BYTES} bytes at most")
    return name
