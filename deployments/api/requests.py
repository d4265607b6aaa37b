"""Around every request: an id, a line in the log, its count and time, and an answer even where nobody foresaw it."""

from __future__ import annotations

import logging
import re
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.metrics import RequestMetrics
from deployments.api.problems import INTERNAL, LARGE_HEADERS, Problem, answer

logger = logging.getLogger(__name__)

HEADER = "X-Request-ID"
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32_768
"""Of a request; browsers and proxies stay far below. The server itself sets no bounds, and to look through thousands of
headers takes it seconds in which it answers nobody."""
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Requests:
    """ASGI middleware. It streams: bodies pass through it untouched."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        large = len(scope["headers"]) > MAX_HEADERS or _header_bytes(scope) > MAX_HEADER_BYTES
        request_id = uuid.uuid4().hex if large else _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            if large:
                await answer(Problem(LARGE_HEADERS, None), request_id)(scope, receive, send_marked)
                return
            await self._app(scope, receive, send_marked)
        except Exception:  # the last resort: the caller gets an id, the log the traceback
            logger.exception("request %s failed", request_id)
            if status:
                raise  # part of the answer is sent already; the server has to break it off
            await answer(Problem(INTERNAL, None), request_id)(scope, receive, send_marked)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.observe(scope["method"], _route(scope), status, seconds)
            # Query strings stay out; a quoted path cannot forge a line.
            path = quote(scope["path"][:500])
            logger.info("%s %s %s %d %.3fs", request_id, scope["method"], path, status, seconds)


def silence_uvicorn() -> None:
    """Keeps uvicorn from writing an access log of its own, which shows query strings. To switch it off when the server
    starts is not enough: Prefect, once imported, sets uvicorn's loggers up anew, but for their filters."""
    logging.getLogger("uvicorn.access").addFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _header_bytes(scope: Scope) -> int:
    return sum(len(name) + len(value) for name, value in scope["headers"])


def _request_id(scope: Scope) -> str:
    """The caller's own id where it has a harmless form, or a new one."""
    given = Headers(scope=scope).get(HEADER, "")
    return given if _GIVEN.fullmatch(given) else uuid.uuid4().hex


def _route(scope: Scope) -> str:
    """The route's template: paths themselves are without number, and name what is a tenant's."""
    return str(getattr(scope.get("route"), "path_format", "none"))
