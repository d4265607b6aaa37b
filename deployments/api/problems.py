"""Errors as RFC 9457 problem details: what a caller can act on, and nothing of this machine."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tasks.domain.contract import Frozen
from tasks.domain.errors import (
    Busy,
    DatabaseUnavailable,
    NotFound,
    OrchardError,
    StorageUnavailable,
    UnreadableUpload,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
CLIENT_GONE = 499
"""What nginx, too, writes down when the client went away; nobody receives it."""


class ProblemKind(NamedTuple):
    """A kind of problem: its status code, the name in its `type`, its title."""

    status: int
    name: str
    title: str


UNREADABLE = ProblemKind(400, "unreadable", "The body cannot be read")
EMPTY = ProblemKind(400, "empty-upload", "The upload is empty")
UNAUTHENTICATED = ProblemKind(401, "unauthenticated", "The caller is not known")
FORBIDDEN = ProblemKind(403, "forbidden", "The key does not allow this")
NOT_FOUND = ProblemKind(404, "not-found", "There is no such thing")
TOO_SLOW = ProblemKind(408, "too-slow", "The body did not come")
BUSY = ProblemKind(409, "busy", "Other work is under way")
TOO_LARGE = ProblemKind(413, "too-large", "The body is too large")
NOT_RAW = ProblemKind(415, "not-raw", "The body is a form")
INVALID = ProblemKind(422, "invalid", "The request does not fit")
TOO_MANY = ProblemKind(429, "too-many-requests", "Requests come too fast")
LOCKED_OUT = ProblemKind(429, "locked-out", "Too many attempts failed")
LARGE_HEADERS = ProblemKind(431, "large-headers", "The headers are too large")
INTERNAL = ProblemKind(500, "internal", "Something went wrong here")
UNAVAILABLE = ProblemKind(503, "unavailable", "Not available for the moment")

KINDS = {kind.status: kind for kind in (
    UNREADABLE, UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, TOO_SLOW, BUSY, TOO_LARGE, NOT_RAW, INVALID, LOCKED_OUT,
    LARGE_HEADERS, INTERNAL, UNAVAILABLE,
)}  # fmt: skip


class Mistake(Frozen):
    """One thing in a request that does not fit."""

    where: str = Field(examples=["body.kind"])
    message: str


class ProblemDocument(Frozen):
    """Problem details by RFC 9457."""

    type: str = Field(description="names the kind of problem", examples=["urn:orchard:problem:not-found"])
    title: str
    status: int
    detail: str | None = None
    request_id: str = Field(description="what the operator's log calls this request")
    errors: tuple[Mistake, ...] = ()


class Problem(Exception):
    """An answer that is a problem."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str | None,
        *,
        errors: tuple[Mistake, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.errors, self.headers = kind, detail, errors, headers


def answer(problem: Problem, request_id: str) -> Response:
    """The problem as a response."""
    document = ProblemDocument(
        type=f"urn:orchard:problem:{problem.kind.name}",
        title=problem.kind.title,
        status=problem.kind.status,
        detail=problem.detail,
        request_id=request_id,
        errors=problem.errors,
    )
    content = document.model_dump(mode="json", exclude_defaults=True)
    return JSONResponse(content, problem.kind.status, problem.headers, MEDIA_TYPE)


def mistakes_of(errors: list[Any]) -> tuple[Mistake, ...]:
    """Pydantic's complaints without the values, which may be secrets."""
    return tuple(Mistake(where=".".join(map(str, error["loc"])), message=error["msg"]) for error in errors)


def public_text(error: str | None, *, whole: bool) -> str | None:
    """What a tenant is told of a recorded error. The text about a file of theirs is `whole`; of others, what happened:
    where on this machine, and what the operator may do, is not theirs to know."""
    if error is None or whole:
        return error
    return without_places(re.split(r"; (?:where|expected|found|do next): ", error)[0])


def without_places(text: str) -> str:
    """The text without absolute paths and addresses, as errors that nobody foresaw have them."""
    return _PLACE.sub("…", text)


_PLACE = re.compile(r"""(?<![^\s'"(\[])(?:[a-z][a-z0-9+.-]*://|/(?=[^\s/'"]+/))[^\s'",;)\]]*""")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an endpoint may answer with, for its OpenAPI description; `describe` adds the schema."""
    schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
    return {
        status: {"description": KINDS[status].title, "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses
    }


def install(app: FastAPI) -> None:
    """Makes every error of the endpoints a problem document."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(OrchardError, _orchard_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return answer(error, request.state.request_id)


async def _orchard_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OrchardError)
    request_id = request.state.request_id
    return answer(problem_of(error, request_id), request_id)


def problem_of(error: OrchardError, request_id: str) -> Problem:
    """`expected` and `found` of what a caller can mend are theirs to know; of the rest, only that it happened.

    `InvalidDefinition` is the operator's mistake (a tier file, a login), and no caller can cause it: it is ours.
    """
    match error:
        case NotFound():
            return Problem(NOT_FOUND, error.message)
        case UnreadableUpload():
            details = (f"{label}: {text}" for label in ("expected", "found") if (text := getattr(error, label)))
            return Problem(UNREADABLE, "; ".join((error.message, *details)))
        case Busy():
            return Problem(BUSY, error.message, headers={"Retry-After": str(RETRY_AFTER_S)})
        case DatabaseUnavailable() | StorageUnavailable():
            logger.warning("request %s: %s", request_id, error)
            return Problem(UNAVAILABLE, error.message, headers={"Retry-After": str(RETRY_AFTER_S)})
        case _:
            logger.error("request %s failed", request_id, exc_info=error)
            return Problem(INTERNAL, None)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = Problem(INVALID, "parts of the request do not fit", errors=mistakes_of(list(error.errors())))
    return answer(problem, request.state.request_id)


async def _http(request: Request, error: Exception) -> Response:
    """What routing itself refuses: an unknown path, a method that the path does not have."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    kind = KINDS.get(error.status_code) or ProblemKind(error.status_code, phrase.lower().replace(" ", "-"), phrase)
    return answer(Problem(kind, None, headers=error.headers), request.state.request_id)


async def _gone(request: Request, error: Exception) -> Response:  # noqa: ARG001  # the signature is Starlette's
    return Response(status_code=CLIENT_GONE)
