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
from deployments.api.problems import Problem
from deployments.api.problems import answer as problem_answer
from deployments.api.service import Service
from deployments.serving.answers import NotAtOnce
from tasks.domain.access import Role

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
        try:
            message = None
            if self._may_be_small(request):
                caller = known_caller(request, self._service, Role.READER)
                serving = self._service.releases.open_already(caller.tenant, use_case) if caller is not None else None
                if serving is not None:
                    async with asyncio.timeout(SILENT_S):
                        message = await request.receive()
                    if not message.get("more_body", False) and message["type"] == "http.request":
                        asking = Asking(request, self._service, message["body"])
                        await self._send(answered(asking, serving, at_once=True), request, send)
                        return
        except Problem as problem:
            await self._send(problem_answer(problem, request.state.request_id), request, send)
            return
        except (NotAtOnce, TimeoutError):
            pass
        await self._app(request.scope, _again(message, request.receive), send)

    @staticmethod
    def _may_be_small(request: Request) -> bool:
        length = request.headers.get("Content-Length", "")
        return length.isdecimal() and int(length) <= SMALL_BYTES

    @staticmethod
    async def _send(response: Response, request: Request, send: Send) -> None:
        request.scope["route"] = _Route()
        await response(request.scope, request.receive, send)


def _again(message: Message | None, receive: Receive) -> Receive:
    """`receive`, with the message that was received already."""
    if message is None:
        return receive
    waiting = [message]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received
