"""Request bodies, never more of them than was agreed: whole in memory when small, in a file when large."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from deployments.api.problems import INVALID, TOO_LARGE, TOO_SLOW, UNREADABLE, Problem, mistakes_of
from tasks.domain.errors import StorageUnavailable

Model = TypeVar("Model", bound=BaseModel)

SILENT_S = 60.0
"""A sender that says nothing for so long is given up."""

WRITTEN_AT_ONCE = 1 << 20


async def chunks_of(request: Request, limit_bytes: int, limit_of: str) -> AsyncIterator[bytes]:
    """The body, chunk by chunk. Raises `Problem` when it is larger, by what the sender announced or by what has come,
    or does not come; `ClientDisconnect` when it is cut off."""
    too_large = Problem(TOO_LARGE, f"{limit_of} may have {limit_bytes:,} bytes at most")
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise too_large
    size, stream = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENT_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Problem(TOO_SLOW, f"nothing came for {SILENT_S:.0f} seconds; send the whole again") from None
        if chunk is None:
            return
        size += len(chunk)
        if size > limit_bytes:
            raise too_large
        yield chunk


async def small_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. Raises `Problem`."""
    return b"".join([chunk async for chunk in chunks_of(request, limit_bytes, "the body")])


async def save_body(request: Request, path: Path, limit_bytes: int, limit_of: str) -> int:
    """Writes the body to a file; returns its size. Raises `Problem`, `ClientDisconnect`, `StorageUnavailable`."""
    size, pending = 0, bytearray()
    try:
        with path.open("wb") as file:
            async for chunk in chunks_of(request, limit_bytes, limit_of):
                size += len(chunk)
                pending += chunk
                if len(pending) >= WRITTEN_AT_ONCE:  # few trips to a thread, and the loop never waits for the disk
                    await run_in_threadpool(file.write, bytes(pending))
                    pending.clear()
            await run_in_threadpool(file.write, bytes(pending))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageUnavailable("there is no space for the file", found=str(error), hint="free some space") from None
    return size


def parsed(model: type[Model], body: bytes) -> Model:
    """The body as JSON of that model. Raises `Problem`."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        if any(each["type"] == "json_invalid" for each in found):
            raise Problem(UNREADABLE, "the body is not JSON") from None
        raise Problem(INVALID, "the body does not fit", errors=mistakes_of(list(found))) from None
