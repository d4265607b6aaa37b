"""`/v1/{use_case}/releases`: what serves, what served, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Query, Response
from fastapi import Path as InPath
from pydantic import Field, TypeAdapter

from deployments.api.auth import Reader, ReadersSpace
from deployments.api.cursors import Number, named
from deployments.api.listings import Listing, Paged, check_rate, file_types, listed
from deployments.api.parameters import Text, UseCaseInPath
from deployments.api.problems import documented
from deployments.api.service import TheService
from infra.database.arrow import UTC
from infra.database.pages import VERDICTS
from tasks.domain.contract import Frozen
from tasks.domain.run import Release

router = APIRouter(tags=["releases"])

RELEASES = pa.schema(
    [
        ("version", pa.int64()),
        ("status", pa.string()),
        ("partitions", pa.int64()),
        ("promoted", pa.int64()),
        ("held", pa.int64()),
        ("dataset_version", pa.int64()),
        ("training_run", pa.int64()),
        ("created_at", UTC),
    ]
)

Version = Annotated[int, InPath(ge=1, lt=2**63, description="of a release", examples=[3])]


class ReleaseInfo(Frozen):
    """An immutable set of models, one for every partition."""

    version: int = Field(examples=[3])
    status: str = Field(
        description="`champion` serves, `challenger` waits for approval, `retired` served", examples=["champion"]
    )
    partitions: int = Field(description="that it has models for")
    promoted: int = Field(description="of these, models that passed the gate of this training")
    held: int = Field(description="of these, those whose new model did not pass; what they had before, stays")
    dataset_version: int = Field(description="of your data, that it was trained on")
    training_run: int
    created_at: datetime


class ReleasePage(Frozen):
    """Releases, the newest first."""

    releases: tuple[ReleaseInfo, ...]
    next: str | None = Field(description="ask with this `cursor` for the next page; null on the last")


class VerdictInfo(Frozen):
    """What the gate said of a partition's new model."""

    partition: str = Field(examples=["store=12,sku=A7"])
    verdict: str = Field(description="`promote` or `hold`", examples=["promote"])
    reason: str | None = Field(examples=["rmse 14.2, naive 16.9"])
    answer: str | None = Field(description="who answers for it: `own`, `tenant_wide` or `naive`", examples=["own"])
    fallback: bool | None = Field(description="whether that is for want of a promoted model")
    estimator: str | None = Field(examples=["lightgbm"])
    source_run: int | None = Field(description="the training run that made the model that answers")
    metric: float | None = Field(description="error on rows that the model never saw")
    naive_metric: float | None = Field(description="error of the naive rule on the same rows")


class VerdictPage(Frozen):
    """Verdicts, by partition."""

    release: int
    verdicts: tuple[VerdictInfo, ...]
    next: str | None = Field(description="ask with this `cursor` for the next page; null on the last")


@router.get(
    "/v1/{use_case}/releases",
    summary="Releases of a use case",
    response_model=ReleasePage,
    responses={**file_types("releases"), **documented(401, 403, 404, 422, 429, 503)},
)
async def releases(
    service: TheService, caller: Reader, space: ReadersSpace, paging: Paged, use_case: UseCaseInPath
) -> Response:
    """What serves and what served before, the newest first."""
    space.tenant.use_case(use_case)

    def read(below: tuple[int] | None, limit: int) -> pa.Table:
        found = space.records.releases(use_case, below=below and below[0], limit=limit)
        return pa.Table.from_pylist([_shown(each) for each in found], RELEASES)

    listing = Listing(
        name="releases",
        use_case=use_case,
        filters={},
        schema=RELEASES,
        read=read,
        position=lambda row: (row["version"],),
        kind=TypeAdapter(tuple[Number]),
    )
    return await listed(service, caller, space, listing, paging)


@router.get(
    "/v1/{use_case}/releases/{version}", summary="One release", responses=documented(401, 403, 404, 422, 429, 503)
)
def release(service: TheService, space: ReadersSpace, use_case: UseCaseInPath, version: Version) -> ReleaseInfo:
    """Whether it serves, how many models it has, and what it was trained on."""
    check_rate(service, space)
    space.tenant.use_case(use_case)
    return ReleaseInfo.model_validate(_shown(space.records.release(use_case, version)))


@router.get(
    "/v1/{use_case}/releases/{version}/verdicts",
    summary="Why each partition is answered as it is",
    response_model=VerdictPage,
    responses={**file_types("verdicts"), **documented(401, 403, 404, 422, 429, 503)},
)
async def verdicts(
    service: TheService,
    caller: Reader,
    space: ReadersSpace,
    paging: Paged,
    use_case: UseCaseInPath,
    version: Version,
    verdict: Annotated[Literal["promote", "hold"] | None, Query(description="Only these.")] = None,
) -> Response:
    """What the gate said of each partition's new model, with the reason, and who answers for it now."""
    space.tenant.use_case(use_case)

    def read(after: tuple[str] | None, limit: int) -> pa.Table:
        if after is None:
            space.records.release(use_case, version)
        return space.records.verdicts_after(use_case, version, after and after[0], limit, verdict)

    listing = Listing(
        name="verdicts",
        use_case=use_case,
        filters=named(version=version, verdict=verdict),
        schema=VERDICTS,
        read=read,
        position=lambda row: (row["partition"],),
        kind=TypeAdapter(tuple[Text]),
        told="verdicts",
        beside={"release": version},
    )
    return await listed(service, caller, space, listing, paging)


def _shown(release: Release) -> dict[str, Any]:
    """All but where its files are."""
    return release.model_dump(include=set(RELEASES.names))
