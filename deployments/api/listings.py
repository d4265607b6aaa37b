"""Listings: rows page by page as JSON, or all of them as a CSV or Parquet file that is made while it is sent.

A file is read in pieces, each from where the one before ended, so that neither memory nor a connection is held while a
slow client takes it. Reading has threads of its own: predictions never wait behind it.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Generic

import anyio
import anyio.to_thread
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter

from deployments.api.auth import Caller
from deployments.api.cursors import MAX_CURSOR, Position, listing_id, opened, sealed
from deployments.api.problems import TOO_MANY, Problem
from deployments.api.service import Service
from deployments.leaving.spreadsheets import guarded
from deployments.serving.tables import PARQUET
from infra.space import TenantSpace

CSV, JSON = "text/csv", "application/json"
PAGE, MAX_PAGE = 100, 1_000
PIECE = 50_000
"""Rows of a file that are in memory at a time."""


class Format(StrEnum):
    """In which form rows are given."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


MEDIA_TYPES = {Format.JSON: JSON, Format.CSV: CSV, Format.PARQUET: PARQUET}


@dataclass(frozen=True)
class Paging:
    """Which page, and in which form."""

    format: Format
    limit: int | None
    cursor: str | None


def paging(
    request: Request,
    limit: Annotated[
        int | None,
        Query(ge=1, le=MAX_PAGE, description=f"So many at most; without it {PAGE}, in a file all.", examples=[PAGE]),
    ] = None,
    cursor: Annotated[
        str | None, Query(max_length=MAX_CURSOR, description="Begins where a page ended: `next` of its answer.")
    ] = None,
    format: Annotated[
        Format | None,
        Query(description="`json`, or a file: `csv`, `parquet`. Without it, the `Accept` header says so."),
    ] = None,
) -> Paging:
    """What the query and the header `Accept` say."""
    return Paging(format or _accepted(request.headers.get("Accept", "")), limit, cursor)


Paged = Annotated[Paging, Depends(paging)]


def _accepted(header: str) -> Format:
    """The first form that the header names and that there is."""
    kinds = {kind: form for form, kind in MEDIA_TYPES.items()}
    for each in header.split(","):
        if (form := kinds.get(each.partition(";")[0].strip().lower())) is not None:
            return form
    return Format.JSON


@dataclass(frozen=True)
class Listing(Generic[Position]):
    """Rows in one order. `name` is what JSON calls them; `told`, what the audit calls them, None where it need not
    know. `read` gives the rows after a position, at most so many; `position` is a row's, and is of that `kind`."""

    name: str
    use_case: str
    filters: Mapping[str, object]
    schema: pa.Schema
    read: Callable[[Position | None, int], pa.Table]
    position: Callable[[dict[str, Any]], tuple[Any, ...]]
    kind: TypeAdapter[Position]
    told: str | None = None
    shown: Callable[[dict[str, Any]], dict[str, Any]] = dict
    beside: Mapping[str, object] = field(default_factory=dict)

    def id_for(self, tenant: str) -> str:
        """Names the listing among all."""
        return listing_id(tenant, self.name, self.use_case, sorted(self.filters.items()))


def file_types(name: str) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI description: the forms that a listing has beside JSON."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        200: {
            "description": f"A page of {name}, or all of them as a file. In CSV, a text that begins with `=`, `+`, "
            "`-`, `@`, a tab or a carriage return has an apostrophe before it, so that no spreadsheet runs it.",
            "content": {CSV: {"schema": {"type": "string"}}, PARQUET: binary},
        }
    }


async def listed(
    service: Service, caller: Caller, space: TenantSpace, listing: Listing[Position], paging: Paging
) -> Response:
    """The answer to a request for a listing. Raises `Problem`."""

    def begin() -> Response | Iterator[bytes]:
        after = None
        if paging.cursor is not None:
            after = opened(listing.id_for(caller.tenant), paging.cursor, listing.kind)
        if listing.told is not None:
            what = listing.told if paging.format is Format.JSON else f"{listing.told} as {paging.format}"
            service.readings.tell(service.witness, caller.actor, caller.tenant, listing.use_case, what)
        if paging.format is Format.JSON:
            return _page(caller, listing, after, paging.limit or PAGE)
        return _file(listing, after, paging)

    check_rate(service, space)
    begun = await anyio.to_thread.run_sync(begin, limiter=service.readers)
    if isinstance(begun, Response):
        return begun
    # The first piece is read before the status is sent: what fails then is still told as a problem.
    first = await anyio.to_thread.run_sync(next, begun, None, limiter=service.readers)
    name = (
        f"{listing.use_case}-{listing.name}.{paging.format}" if listing.use_case else f"{listing.name}.{paging.format}"
    )
    return StreamingResponse(
        _sent(service, first, begun),
        media_type=MEDIA_TYPES[paging.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def check_rate(service: Service, space: TenantSpace) -> None:
    """Raises `Problem` when the tenant reads too often. Predictions have an allowance of their own."""
    per_second = space.policy.requests_per_s
    if wait_s := service.limits.wait_s(f"{space.tenant.id} reads", per_second):
        detail = f"a {space.tenant.tier} tenant may read {per_second:g} times a second"
        raise Problem(TOO_MANY, detail, headers={"Retry-After": str(wait_s)})


def _page(caller: Caller, listing: Listing[Position], after: Position | None, limit: int) -> Response:
    rows = listing.read(after, limit + 1).to_pylist()
    more, rows = len(rows) > limit, rows[:limit]
    following = sealed(listing.id_for(caller.tenant), listing.position(rows[-1])) if more else None
    columns = listing.schema.names
    shown = [listing.shown({name: row[name] for name in columns}) for row in rows]
    content = {**listing.beside, listing.name: shown, "next": following}
    return Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), media_type=JSON)


def _file(listing: Listing[Position], after: Position | None, paging: Paging) -> Iterator[bytes]:
    """The bytes of a file, piece by piece."""
    left = paging.limit
    outbox = _Outbox()
    with _writer(outbox, listing.schema, paging.format) as writer:
        while left is None or left > 0:
            wanted = PIECE if left is None else min(PIECE, left)
            rows = listing.read(after, wanted)
            if len(rows):
                table = rows.select(listing.schema.names)
                writer.write_table(guarded(table) if paging.format is Format.CSV else table)
                yield outbox.taken()
            if len(rows) < wanted:
                break
            after = listing.kind.validate_python(listing.position(rows.slice(len(rows) - 1).to_pylist()[0]))
            left = None if left is None else left - len(rows)
    yield outbox.taken()


def _writer(outbox: _Outbox, schema: pa.Schema, form: Format) -> Any:
    if form is Format.CSV:
        return pa.csv.CSVWriter(outbox, guarded(schema.empty_table()).schema)
    return pq.ParquetWriter(outbox, schema, compression="zstd")


async def _sent(service: Service, first: bytes | None, rest: Iterator[bytes]) -> AsyncIterator[bytes]:
    piece = first
    while piece is not None:
        yield piece
        piece = await anyio.to_thread.run_sync(next, rest, None, limiter=service.readers)


class _Outbox(io.RawIOBase):
    """What was written and not yet sent."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting, self._sent = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting += data
        return len(data)

    def tell(self) -> int:
        return self._sent + len(self._waiting)

    def taken(self) -> bytes:
        """What waits, which then waits no more."""
        found = bytes(self._waiting)
        self._sent += len(found)
        self._waiting.clear()
        return found
