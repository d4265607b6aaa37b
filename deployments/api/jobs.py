"""`/v1/{use_case}/jobs` and `/v1/jobs`: training and scoring on demand."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from deployments.api.auth import ReadersSpace, UploadersSpace
from deployments.api.bodies import parsed, small_body
from deployments.api.parameters import UseCaseInPath
from deployments.api.problems import documented, public_text
from deployments.api.service import Service, TheService
from deployments.progress import JobProgress, job_progress
from infra.space import TenantSpace
from tasks.domain.contract import Frozen
from tasks.domain.job import Job, JobKind

router = APIRouter(tags=["jobs"])

MAX_BYTES = 10_000


class JobRequest(Frozen):
    """What is wanted."""

    kind: Literal["refresh", "scoring"] = Field(
        description="`refresh`: train what changed, promote, score the open rows; `scoring`: only score them",
        examples=["refresh"],
    )


# Read by hand, because FastAPI reads a declared body before it knows the caller, and however long it is.
JSON_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": JobRequest.model_json_schema()}}}
}


@router.post(
    "/v1/{use_case}/jobs",
    status_code=202,
    summary="Train or score now",
    response_description="It waits for its turn.",
    responses=documented(400, 401, 403, 404, 413, 422, 429, 503),
    openapi_extra=JSON_BODY,
)
async def ask(request: Request, service: TheService, space: UploadersSpace, use_case: UseCaseInPath) -> JobProgress:
    """Asks for work without a new file. Safe to repeat: while one of its kind waits, it is the same job."""
    space.tenant.use_case(use_case)
    wanted = parsed(JobRequest, await small_body(request, MAX_BYTES))

    def work() -> JobProgress:
        job = space.records.request(use_case, JobKind(wanted.kind), by="api")
        service.nudge()
        return _document(service, space, job)

    return await run_in_threadpool(work)


@router.get("/v1/jobs/{job_id}", summary="Follow a job", responses=documented(401, 403, 404, 422, 429, 503))
def follow(
    service: TheService,
    space: ReadersSpace,
    job_id: Annotated[int, InPath(ge=1, lt=2**63, description="`job_id` of an answer.", examples=[42])],
) -> JobProgress:
    """Where a job stands, whether you asked for it, an upload or a schedule."""
    return _document(service, space, space.records.job(job_id))


def _document(service: Service, space: TenantSpace, job: Job) -> JobProgress:
    progress = job_progress(space, service.queue(), job)
    return progress.model_copy(update={"error": public_text(progress.error, whole=False)})
