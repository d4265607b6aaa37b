"""`POST /v1/{use_case}/predict`: an application asks, and is answered in milliseconds.

An answer is made in one thread, so that the event loop never waits for a model, a file or the database; while the
caller's key and the release are remembered, it asks neither. With all in memory it is made sooner: see `at_once`.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from deployments.api.auth import Caller, Reader
from deployments.api.bodies import small_body
from deployments.api.parameters import UseCaseInPath
from deployments.api.problems import INVALID, TOO_LARGE, TOO_MANY, UNREADABLE, Mistake, Problem, documented
from deployments.api.service import Service, TheService
from deployments.serving.answers import Asked, NotAtOnce, answer
from deployments.serving.releases import Serving, TooManyOpenings
from deployments.serving.request_meter import For, Measured
from deployments.serving.tables import CONTENT_TYPES, rows_of, written
from tasks.domain.contract import Frozen
from tasks.online.rows import BadRows

router = APIRouter(tags=["predictions"])

SHOWN_MISTAKES = 100

EXAMPLE = {"rows": [{"store": 12, "sku": "A7", "day": "2026-11-26", "price": 2.5, "promo": False, "last_week": 31}]}


class PredictRequest(Frozen):
    """Rows to predict, each with the columns that the use case's contract asks of scoring files."""

    rows: list[dict[str, Any]] = Field(min_length=1, description="at most as many as the tier allows")


class Answer(Frozen):
    """What is predicted for one row: `prediction` for regression, `label` and `probabilities` for classification."""

    partition: str = Field(examples=["store=12,sku=A7"])
    prediction: float | None = Field(default=None, description="null where the baseline column is", examples=[33.2])
    label: str | None = None
    probabilities: dict[str, float] | None = None
    answer: str = Field(description="who answers: own, tenant_wide or naive", examples=["own"])
    fallback: bool = Field(description="whether that is for want of a model of its own; so for unknown partitions")
    model_run: int | None = Field(description="the training run that made the model", examples=[17])
    source: str = Field(description="online, precomputed, or fallback", examples=["online"])
    scored_at: str | None = Field(default=None, description="of a precomputed answer: when it was made")
    contributions: dict[str, Any] | None = Field(
        default=None,
        description="with `explain`: feature → contribution, and `bias`; a baseline column's value comes on top",
    )


class Prediction(Frozen):
    """The answers, in the order of the rows."""

    request_id: str
    use_case: str
    release: int = Field(description="version of the release that answered")
    stale_s: float | None = Field(
        default=None, description="seconds for which nobody could say whether that release still serves"
    )
    rows: list[Answer]


BINARY = {"type": "string", "format": "binary"}

BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": PredictRequest.model_json_schema(), "example": EXAMPLE},
            **{kind: {"schema": BINARY} for kind in CONTENT_TYPES},
        },
    }
}


@router.post(
    "/v1/{use_case}/predict",
    summary="Predict rows",
    response_model=Prediction,
    response_description="Answers in the order of the rows; as a table where the `Accept` header asks for one.",
    responses={
        200: {"content": {kind: {"schema": BINARY} for kind in CONTENT_TYPES}},
        **documented(400, 401, 403, 404, 408, 413, 422, 429, 503),
    },
    openapi_extra=BODIES,
)
async def predict(
    request: Request,
    service: TheService,
    use_case: UseCaseInPath,
    caller: Reader,
    explain: Annotated[bool, Query(description="Also what each feature contributes.")] = False,
) -> Response:
    """One row or many, as JSON, Arrow stream or Parquet. The key alone decides the tenant.

    Rows are checked by the contract, as those of files are; one that does not fit makes the whole request 422, with
    row, column and rule. Keys that no model knows get the fallback, and are told so.
    """
    body = await small_body(request, service.largest_request)
    return await run_in_threadpool(_opened_and_answered, Asking(request, service, body, explain), caller, use_case)


class Asking(NamedTuple):
    """A request that was let in."""

    request: Request
    service: Service
    body: bytes
    explain: bool = False

    def header(self, name: str) -> str:
        """The first of the media types that a header names."""
        return self.request.headers.get(name, "").partition(",")[0].partition(";")[0].strip().lower()


def _opened_and_answered(asking: Asking, caller: Caller, use_case: str) -> Response:
    try:
        serving = asking.service.releases.serving(caller.tenant, use_case)
    except TooManyOpenings as error:
        detail = "too many of the use cases that you ask for have no release"
        raise Problem(TOO_MANY, detail, headers={"Retry-After": str(error.wait_s)}) from None
    return answered(asking, serving)


def answered(asking: Asking, serving: Serving, at_once: bool = False) -> Response:
    """The whole answer. Raises `Problem`; `NotAtOnce`, if it was to be at once and cannot: then ask again without."""
    with asking.service.meter.request(For(serving.space.tenant.id, serving.use_case.id, serving.version)) as measured:
        measured.bytes_in = len(asking.body)
        try:
            response = _response(asking, serving, measured, at_once)
        except NotAtOnce:  # what was computed until now is booked; the request will be
            measured.requests = measured.bytes_in = 0
            raise
        measured.bytes_out = len(response.body)
        return response


def _response(asking: Asking, serving: Serving, measured: Measured, at_once: bool) -> Response:
    request, service, body, explain = asking
    kind, accepted = asking.header("Content-Type"), asking.header("Accept")
    if at_once and (kind in CONTENT_TYPES or accepted in CONTENT_TYPES):
        raise NotAtOnce
    policy = serving.space.policy
    if wait_s := service.limits.wait_s(serving.space.tenant.id, policy.requests_per_s):
        detail = f"a {serving.space.tenant.tier} tenant may make {policy.requests_per_s:g} requests a second"
        raise Problem(TOO_MANY, detail, headers={"Retry-After": str(wait_s)})
    if len(body) > policy.request_bytes:
        raise Problem(TOO_LARGE, f"a request may have {policy.request_bytes:,} bytes at most")
    if kind in CONTENT_TYPES:
        rows = rows_of(body, kind, policy.request_rows, serving.use_case.contract.columns)
    else:
        rows = _json_rows(body)
    if len(rows) > policy.request_rows:
        raise Problem(TOO_LARGE, f"a request may have {policy.request_rows:,} rows at most; upload a file instead")
    try:
        answers = answer(service, serving, Asked(rows, explain, at_once))
    except NotAtOnce:
        service.limits.give_back(serving.space.tenant.id)
        raise
    except BadRows as error:
        found = tuple(
            Mistake(where=".".join(filter(None, ("rows", str(each.row), each.column))), message=each.rule)
            for each in error.mistakes[:SHOWN_MISTAKES]
        )
        count = len(error.mistakes)
        what = "1 value does" if count == 1 else f"{count} values do"
        raise Problem(INVALID, f"{what} not fit the contract", errors=found) from None
    measured.rows = len(answers)
    stale_s = service.releases.stale_s(serving.space.tenant.id)
    if accepted in CONTENT_TYPES:
        headers = {"Orchard-Release": str(serving.version)}
        if stale_s:
            headers["Orchard-Stale-Seconds"] = f"{stale_s:.1f}"
        return Response(written(answers, accepted), media_type=accepted, headers=headers)
    content: dict[str, Any] = {
        "request_id": request.state.request_id,
        "use_case": serving.use_case.id,
        "release": serving.version,
        "rows": answers,
    }
    if stale_s:
        content["stale_s"] = round(stale_s, 1)
    return Response(orjson.dumps(content), media_type="application/json")


def _json_rows(body: bytes) -> list[Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(UNREADABLE, f"the body is not JSON: {str(error)[:200]}") from None
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or content.keys() != {"rows"}:
        raise Problem(INVALID, 'expected {"rows": [{...}, ...]}, with at least one row and nothing else')
    return rows
