"""`/v1/{use_case}/predictions` and `/v1/{use_case}/health`: what was predicted, and how good it turned out to be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, Field, TypeAdapter

from deployments.api.auth import Reader, ReadersSpace
from deployments.api.cursors import Number, named
from deployments.api.listings import Listing, Paged, file_types, listed
from deployments.api.parameters import Text, UseCaseInPath
from deployments.api.problems import documented
from deployments.api.service import TheService
from infra.database.pages import HEALTH
from infra.database.predictions import PREDICTIONS, Place, ScoredRun, Wanted
from infra.space import TenantSpace
from tasks.domain.contract import Frozen

router = APIRouter(tags=["predictions"])

SHOWN = pa.schema([field for field in PREDICTIONS if field.name != "batch"])

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Micros = Annotated[int, Field(ge=0, lt=250_000_000_000_000_000)]
At = tuple[Micros, Number, Annotated[int, Field(ge=0, lt=2**31)], Text, Text]


class PredictionInfo(Frozen):
    """What batch scoring predicted for a row: `prediction` for regression, `label` and `probabilities` for classes."""

    partition: str = Field(examples=["store=12,sku=A7"])
    row_key: str = Field(
        description="the values of the row key, in the contract's order; `,`, `=` and `%` in them are percent-encoded",
        examples=["12,A7,2026-11-26"],
    )
    prediction: float | None = Field(description="null where the baseline column is", examples=[33.2])
    label: str | None
    probabilities: tuple[float, ...] | None = Field(description="in the order of `classes`")
    baseline: tuple[float, ...] | None = Field(description="what the naive rule says: a value, or the base rates")
    answer: str = Field(description="who answered: `own`, `tenant_wide` or `naive`", examples=["own"])
    fallback: bool = Field(description="whether that was for want of a model of its own")
    model_run: int | None = Field(description="the training run that made the model", examples=[17])
    run_id: int = Field(description="the scoring run", examples=[21])
    release_version: int = Field(examples=[3])
    upload_id: str | None = Field(description="the file that the row came with")
    scored_at: datetime


class PredictionPage(Frozen):
    """Predictions in the order in which they were published, the oldest first."""

    classes: tuple[str, ...] = Field(description="what the probabilities are of; none for regression")
    predictions: tuple[PredictionInfo, ...]
    next: str | None = Field(description="ask with this `cursor` for the next page; null on the last")


class HealthInfo(Frozen):
    """How good predictions of a partition turned out to be."""

    partition: str = Field(examples=["store=12,sku=A7"])
    metric: str = Field(examples=["rmse"])
    rows: int = Field(description="whose truth is known")
    own_rows: int = Field(description="of these, answered by the partition's own model")
    error: float | None
    baseline_error: float | None = Field(description="of the naive rule, on the same rows")
    skill: float | None = Field(
        description="1 - error / baseline_error; above 0, predictions are worth more than the rule"
    )
    last_run_at: datetime | None


class HealthPage(Frozen):
    """Live error, by partition."""

    health: tuple[HealthInfo, ...]
    next: str | None = Field(description="ask with this `cursor` for the next page; null on the last")


@router.get(
    "/v1/{use_case}/predictions",
    summary="What batch scoring predicted",
    response_model=PredictionPage,
    responses={**file_types("predictions"), **documented(401, 403, 404, 422, 429, 503)},
)
async def predictions(
    service: TheService,
    caller: Reader,
    space: ReadersSpace,
    paging: Paged,
    use_case: UseCaseInPath,
    partition: Annotated[
        Text | None, Query(description="Only of this partition.", examples=["store=12,sku=A7"])
    ] = None,
    row_key: Annotated[Text | None, Query(description="Only of this row.", examples=["12,A7,2026-11-26"])] = None,
    since: Annotated[
        AwareDatetime | None,
        Query(description="Only what was published then or later.", examples=["2026-11-26T00:00:00Z"]),
    ] = None,
    release: Annotated[int | None, Query(ge=1, lt=2**63, description="Only of this release.", examples=[3])] = None,
    current: Annotated[bool, Query(description="Without what a later run over the same file has replaced.")] = True,
) -> Response:
    """Predictions in the order of publication, so that pages miss nothing, whatever is scored meanwhile. `since` the
    last `scored_at` that you know, there is what is new, after that last file once more.

    A row key that came in two files is there twice; `scored_at` tells which is newer.
    """
    found = space.tenant.use_case(use_case)
    wanted = Wanted(use_case, partition, row_key, release, since, current)
    listing = Listing(
        name="predictions",
        use_case=use_case,
        filters=named(partition=partition, row_key=row_key, since=since, release=release, current=current),
        schema=SHOWN,
        read=_Reading(space, wanted).rows,
        position=_position,
        kind=TypeAdapter(At),
        told="predictions",
        beside={"classes": found.classes},
    )
    return await listed(service, caller, space, listing, paging)


class _Reading:
    """One answer's way through the predictions: the runs that are there when it begins, whatever is published
    meanwhile."""

    def __init__(self, space: TenantSpace, wanted: Wanted) -> None:
        self._records, self._wanted = space.records, wanted
        self._runs: list[ScoredRun] | None = None

    def rows(self, after: At | None, limit: int) -> pa.Table:
        place = after and Place(EPOCH + timedelta(microseconds=after[0]), *after[1:])
        if self._runs is None:
            self._runs = self._records.scored_runs(self._wanted, place)
        return self._records.predictions_after(self._wanted, self._runs, place, limit)


def _position(row: dict[str, Any]) -> At:
    micros = (row["scored_at"] - EPOCH) // timedelta(microseconds=1)
    return micros, row["run_id"], row["batch"], row["partition"], row["row_key"]


@router.get(
    "/v1/{use_case}/health",
    summary="How good predictions turned out to be",
    response_model=HealthPage,
    responses={**file_types("live error"), **documented(401, 403, 404, 422, 429, 503)},
)
async def health(
    service: TheService, caller: Reader, space: ReadersSpace, paging: Paged, use_case: UseCaseInPath
) -> Response:
    """Live error per partition, over all rows whose truth has arrived, beside that of the naive rule."""
    space.tenant.use_case(use_case)
    listing = Listing(
        name="health",
        use_case=use_case,
        filters={},
        schema=HEALTH,
        read=lambda after, limit: space.records.health_after(use_case, after, limit),
        position=lambda row: (row["partition"], row["metric"]),
        kind=TypeAdapter(tuple[Text, Text]),
        told="health",
    )
    return await listed(service, caller, space, listing, paging)
