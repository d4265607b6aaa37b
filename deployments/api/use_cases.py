"""`/v1/use-cases` and `/v1/{use_case}/definition`: what a tenant's problems are, and what their rows must look like."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from deployments.api.auth import ReadersSpace
from deployments.api.listings import check_rate
from deployments.api.parameters import UseCaseInPath
from deployments.api.problems import documented
from deployments.api.service import TheService
from tasks.domain.contract import Contract, Frozen
from tasks.domain.derived import Derived
from tasks.domain.names import ColumnName, Purpose, UseCaseId
from tasks.domain.schedule import Pull
from tasks.domain.use_case import Estimator, Features, Gate, Kind, Metric, Online, Training, UseCase

router = APIRouter(tags=["use cases"])


class UseCaseSummary(Frozen):
    """A use case in few words."""

    id: UseCaseId = Field(examples=["demand"])
    description: str
    kind: Kind
    partition_by: tuple[ColumnName, ...] = Field(
        description="there is a model for each combination of these", examples=[["store", "sku"]]
    )
    target: ColumnName = Field(examples=["sales"])
    release: int | None = Field(
        description="version of the release that serves; null before the first one", examples=[3]
    )


class UseCaseList(Frozen):
    """Your use cases, in the order of your definition."""

    use_cases: tuple[UseCaseSummary, ...]


class PullInfo(Frozen):
    """When rows are fetched from your own database."""

    watermark: ColumnName = Field(description="the greatest value so far is where the next fetch begins")
    purpose: Purpose
    schedule: str = Field(examples=["*/15 * * * *"])


class UseCaseDefinition(Frozen):
    """A use case as it is defined, but for how your own database is reached."""

    id: UseCaseId = Field(examples=["demand"])
    description: str
    kind: Kind
    contract: Contract = Field(description="columns, their types, and the rules that every row is checked against")
    columns: dict[Purpose, tuple[ColumnName, ...]] = Field(
        description="which columns a file must have, by purpose; rows to predict need those of `scoring`"
    )
    derived: dict[ColumnName, Derived]
    partition_by: tuple[ColumnName, ...] = Field(examples=[["store", "sku"]])
    target: ColumnName
    classes: tuple[str, ...] = Field(description="in the order of the probabilities; none for regression")
    time: ColumnName | None
    baseline: ColumnName | None = Field(description="the natural guess, which models improve on")
    features: Features
    metric: Metric = Field(description="what models are chosen and judged by; lower is better")
    estimators: tuple[Estimator, ...]
    gate: Gate
    training: Training
    schedule: str | None = Field(
        description="when it is trained and scored anew by itself, in UTC", examples=["0 3 * * *"]
    )
    pull: PullInfo | None
    online: Online
    release: int | None = Field(
        description="version of the release that serves; null before the first one", examples=[3]
    )


@router.get("/v1/use-cases", summary="Your use cases", responses=documented(401, 403, 422, 429, 503))
def use_cases(service: TheService, space: ReadersSpace) -> UseCaseList:
    """What is predicted for you, and which release serves."""
    check_rate(service, space)
    serving = space.records.champions()
    return UseCaseList(
        use_cases=tuple(
            UseCaseSummary(
                id=each.id,
                description=each.description,
                kind=each.kind,
                partition_by=each.partition_by,
                target=each.target,
                release=serving.get(each.id),
            )
            for each in space.tenant.use_cases
        )
    )


@router.get(
    "/v1/{use_case}/definition",
    summary="A use case's contract, features and gate",
    responses=documented(401, 403, 404, 422, 429, 503),
)
def definition(service: TheService, space: ReadersSpace, use_case: UseCaseInPath) -> UseCaseDefinition:
    """What a row must look like, what models see of it, and what a model has to achieve before it serves."""
    check_rate(service, space)
    found = space.tenant.use_case(use_case)
    shared = UseCaseDefinition.model_fields.keys() & UseCase.model_fields.keys() - {"pull"}
    return UseCaseDefinition(
        **{name: getattr(found, name) for name in shared},
        columns={purpose: found.columns_for(purpose) for purpose in Purpose},
        classes=found.classes,
        metric=found.metric,
        pull=_told(found.pull),
        release=space.records.champions().get(use_case),
    )


def _told(pull: Pull | None) -> PullInfo | None:
    """Neither the secret's name nor the query: what reaches the tenant's database is no application's to know."""
    if pull is None:
        return None
    return PullInfo(watermark=pull.watermark, purpose=pull.purpose, schedule=pull.schedule)
