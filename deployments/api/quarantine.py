"""`/v1/uploads/{upload_id}/quarantine`: rows of a file that were set aside, each with the rule it broke."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Response
from pydantic import Field, TypeAdapter
from starlette.concurrency import run_in_threadpool

from deployments.api.auth import Admin, AdminsSpace
from deployments.api.cursors import Number
from deployments.api.listings import Listing, Paged, file_types, listed
from deployments.api.problems import documented
from deployments.api.service import TheService
from deployments.api.uploads import UploadId
from tasks.domain.contract import Frozen
from tasks.ingestion.quarantine import SCHEMA, quarantined_rows

router = APIRouter(tags=["uploads"])


class QuarantinedRow(Frozen):
    """A row that is not in your data."""

    line: int = Field(description="its place in the file, from 1", examples=[17])
    outcome: str = Field(description="`quarantined`, or `duplicate` where its row key comes again later")
    rule: str = Field(description="what it broke; several are joined by `; `", examples=["price is outside 0 to inf"])
    row: dict[str, Any] = Field(description="as the file has it; cells of personal columns are masked")


class QuarantinePage(Frozen):
    """Rows in the order in which they were found."""

    rows: tuple[QuarantinedRow, ...]
    next: str | None = Field(description="ask with this `cursor` for the next page; null on the last")


@router.get(
    "/v1/uploads/{upload_id}/quarantine",
    summary="Rows of a file that were set aside",
    response_model=QuarantinePage,
    responses={**file_types("quarantined rows"), **documented(401, 403, 404, 422, 429, 503)},
)
async def quarantine(
    service: TheService, caller: Admin, space: AdminsSpace, paging: Paged, upload_id: UploadId
) -> Response:
    """Bad and duplicate rows, each with its line, the rule that it broke, and what the file says."""
    upload = await run_in_threadpool(space.records.upload, upload_id)
    listing = Listing(
        name="rows",
        use_case=upload.use_case,
        filters={"upload_id": upload_id},
        schema=SCHEMA,
        read=lambda after, limit: quarantined_rows(
            space.files, upload.use_case, upload_id, after[0] if after else 0, limit
        ),
        position=lambda row: (row["place"] + 1,),
        kind=TypeAdapter(tuple[Number]),
        told="quarantine",
        shown=lambda row: row | {"row": orjson.loads(row["row"])},
    )
    return await listed(service, caller, space, listing, paging)
