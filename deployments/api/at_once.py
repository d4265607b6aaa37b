"""Predictions on the spot: a small request is answered on the event loop, if its key, release and models are in memory.

That takes about a tenth of a millisecond, less than a thread takes to be handed the request, and less than FastAPI's
part of it. Who is let in, how rows are checked, what is predicted and what is metered is decided by the same functions
as for all others. Whatever would wait, for the database, a file, or much computing, goes the usual way.
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.auth import known_caller
from deployments.api.bodies import SILENT_S
from deployments.api.predict import Asking, answered
from deployments.api.problems import Problem, problem_of
from deployments.api.problems import answer as problem_answer
from deployments.api.service import Service
from deployments.serving.answers import NotAtOnce
from tasks.domain.access import Role
from tasks.domain.errors import OrchardError

SMALL_BYTES = 4_096
"""Of a body that may be read and checked on the spot."""

_PATH = re.compile(r"/v1/([^/]+)/predict")


class _Route(NamedTuple):
    """What the metrics call it: as the route that answers the usual way."""

    path_format: str = "/v1/{use_case}/predict"


class AtOnce:
    """ASGI middleware. What it does not answer goes on as it came."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and not scope["query_string"]:
            path = _PATH.fullmatch(scope["path"])
            if path is not None:
                await self._predict(path[1], Request(scope, receive), send)
                return
        await self._app(scope, receive, send)

    async def _predict(self, use_case: str, request: Request, send: Send) -> None:
        received: list[Message] = []
        try:
            caller = known_caller(request, self._service, Role.READER) if _may_be_small(request) else None
            serving = self._service.releases.open_already(caller.tenant, use_case) if caller is not None else None
            if serving is not None:
                async with asyncio.timeout(SILENT_S):
                    while not received or received[-1].get("more_body", False):
                        received.append(await request.receive())
                if received[-1]["type"] == "http.request":
                    body = b"".join(message["body"] for message in received)
                    await _send(answered(Asking(request, self._service, body), serving, at_once=True), request, send)
                    return
        except (Problem, OrchardError) as error:
            request_id = request.state.request_id
            problem = error if isinstance(error, Problem) else problem_of(error, request_id)
            await _send(problem_answer(problem, request_id), request, send)
            return
        except (NotAtOnce, TimeoutError):
            pass
        await self._app(request.scope, _again(received, request.receive), send)


def _may_be_small(request: Request) -> bool:
    length = request.headers.get("Content-Length", "")
    return length.isdecimal() and int(length) <= SMALL_BYTES


async def _send(response: Response, request: Request, send: Send) -> None:
    request.scope["route"] = _Route()
    await response(request.scope, request.receive, send)


def _again(received: list[Message], receive: Receive) -> Receive:
    """`receive`, with the messages that were received already."""
    if not received:
        return receive
    waiting = received[::-1]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
