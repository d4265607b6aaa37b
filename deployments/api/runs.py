"""`/v1/runs`: what was done with a tenant's data, each run with its receipt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import orjson
import pyarrow as pa
from fastapi import APIRouter, Query, Response
from fastapi import Path as InPath
from pydantic import Field, TypeAdapter

from deployments.api.auth import Reader, ReadersSpace
from deployments.api.cursors import Number, named
from deployments.api.listings import Listing, Paged, check_rate, file_types, listed
from deployments.api.problems import documented, public_text, without_places
from deployments.api.service import TheService
from infra.database.arrow import UTC
from tasks.domain.contract import Frozen
from tasks.domain.names import Stage, UseCaseId
from tasks.domain.run import Run, RunStatus

router = APIRouter(tags=["runs"])

RUNS = pa.schema(
    [
        ("run_id", pa.int64()),
        ("use_case", pa.string()),
        ("stage", pa.string()),
        ("status", pa.string()),
        ("upload_id", pa.string()),
        ("dataset_version", pa.int64()),
        ("release_version", pa.int64()),
        ("attempts", pa.int64()),
        ("started_at", UTC),
        ("finished_at", UTC),
        ("receipt", pa.string()),
        ("error", pa.string()),
    ]
)


class RunInfo(Frozen):
    """One stage's work, however many attempts it took."""

    run_id: int = Field(examples=[17])
    use_case: str = Field(examples=["demand"])
    stage: Stage
    status: RunStatus
    upload_id: str | None = Field(description="the file that it worked on, if it was about one")
    dataset_version: int | None = Field(description="of your data, that it read or made")
    release_version: int | None = Field(description="that it scored with")
    attempts: int = Field(ge=1)
    started_at: datetime
    finished_at: datetime | None
    receipt: dict[str, Any] = Field(
        description="what became of every row or partition; in files, as JSON",
        examples=[{"partitions": 412, "trained": 398, "reused": 0, "rejected": 14, "failed": 0, "causes": {}}],
    )
    error: str | None = Field(description="why the latest attempt did not come through")


class RunPage(Frozen):
    """Runs, the newest first."""

    runs: tuple[RunInfo, ...]
    next: str | None = Field(description="ask with this `cursor` for the next page; null on the last")


@router.get(
    "/v1/runs",
    summary="What was done",
    response_model=RunPage,
    responses={**file_types("runs"), **documented(401, 403, 404, 422, 429, 503)},
)
async def runs(
    service: TheService,
    caller: Reader,
    space: ReadersSpace,
    paging: Paged,
    use_case: Annotated[UseCaseId | None, Query(description="All use cases without it.", examples=["demand"])] = None,
    stage: Annotated[Stage | None, Query(description="Only of this stage.")] = None,
    status: Annotated[RunStatus | None, Query(description="Only those that stand like this.")] = None,
) -> Response:
    """Runs with their receipts: every row and every partition in exactly one state. The newest first."""
    if use_case is not None:
        space.tenant.use_case(use_case)

    def read(below: tuple[int] | None, limit: int) -> pa.Table:
        found = space.records.runs(use_case, stage, status=status, below=below and below[0], limit=limit)
        rows = [each | {"receipt": json.dumps(each["receipt"])} for each in map(_shown, found)]
        return pa.Table.from_pylist(rows, RUNS)

    listing = Listing(
        name="runs",
        use_case=use_case or "",
        filters=named(stage=stage, status=status),
        schema=RUNS,
        read=read,
        position=lambda row: (row["run_id"],),
        kind=TypeAdapter(tuple[Number]),
        shown=lambda row: row | {"receipt": orjson.loads(row["receipt"])},
    )
    return await listed(service, caller, space, listing, paging)


@router.get("/v1/runs/{run_id}", summary="One run", responses=documented(401, 403, 404, 422, 429, 503))
def run(
    service: TheService,
    space: ReadersSpace,
    run_id: Annotated[int, InPath(ge=1, lt=2**63, description="`run_id` of a listing.", examples=[17])],
) -> RunInfo:
    """What a run did, its receipt, and why it failed if it did."""
    check_rate(service, space)
    return RunInfo.model_validate(_shown(space.records.run(run_id)))


def _shown(run: Run) -> dict[str, Any]:
    """A run as its tenant sees it: nothing of this machine."""
    shown = run.model_dump(include=set(RUNS.names))
    return shown | {"error": public_text(run.error, whole=False), "receipt": _public(run.receipt)}


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {without_places(str(name)): _public(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    return without_places(value) if isinstance(value, str) else value
