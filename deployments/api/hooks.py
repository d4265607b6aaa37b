"""`/hooks/s3`: an object store says that a file has arrived."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from deployments.api.auth import hook_caller
from deployments.api.bodies import small_body
from deployments.api.notifications import inbox_paths, objects_of
from deployments.api.problems import documented
from deployments.api.service import TheService
from tasks.domain.contract import Frozen

router = APIRouter(tags=["hooks"], dependencies=[Depends(hook_caller)])

MAX_BYTES = 1_000_000

NOTIFICATION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "Records": [
                        {
                            "eventName": "ObjectCreated:Put",
                            "s3": {"bucket": {"name": "files"}, "object": {"key": "inbox/acme/demand/history/a.csv"}},
                        }
                    ]
                },
            }
        },
    }
}


class Taken(Frozen):
    """What became of a notification."""

    taken: int = Field(ge=0, description="new files of the inbox, whose admission was started")
    ignored: int = Field(ge=0, description="removals, and what is not of the inbox")


@router.post(
    "/hooks/s3",
    summary="A file arrived",
    responses=documented(400, 401, 408, 413, 422, 429),
    openapi_extra=NOTIFICATION,
)
async def notified(request: Request, service: TheService) -> Taken:
    """Takes notifications of AWS S3, EventBridge and MinIO. Keys below the inbox, `tenant/use_case/purpose/name`, lead
    to the event `orchard.upload.received`; everything else is counted and ignored. Safe to repeat."""
    objects = objects_of(await small_body(request, MAX_BYTES))
    paths = list(inbox_paths(objects, service.settings.inbox_url))

    def announce() -> None:
        for path in dict.fromkeys(paths):
            service.announce(path)

    await run_in_threadpool(announce)
    return Taken(taken=len(paths), ignored=len(objects) - len(paths))
