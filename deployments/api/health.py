"""`/healthz`, `/readyz`, `/metrics`: for supervisors, load balancers and Prometheus."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from deployments.api.auth import scraper
from deployments.api.metrics import database_answers
from deployments.api.problems import RETRY_AFTER_S, UNAVAILABLE, Problem, documented
from deployments.api.service import TheService
from tasks.domain.contract import Frozen

router = APIRouter(tags=["health"])


class Health(Frozen):
    """How it is."""

    status: Literal["alive", "ready"]


@router.get("/healthz", summary="Does the process live?")
async def healthz() -> Health:
    """Answers as long as the process does; asks nobody else."""
    return Health(status="alive")


@router.get("/readyz", summary="Can it work?", responses=documented(503))
def readyz(service: TheService) -> Health:
    """Answers 503 while nothing could be answered: the database does not answer, and no release is in memory. With one,
    its tenant is predicted for all the same."""
    if not service.releases.opened() and not database_answers(service.settings):
        raise Problem(UNAVAILABLE, "the database does not answer", headers={"Retry-After": str(RETRY_AFTER_S)})
    return Health(status="ready")


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    dependencies=[Depends(scraper)],
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(401, 403, 429, 503),
    },
)
def metrics(request: Request) -> Response:
    """Queues, slots, runs, partitions, requests, and models in memory, in Prometheus' text format. Open on loopback;
    elsewhere it needs the hook secret or an operator's key."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
