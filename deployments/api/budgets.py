"""`/v1/budgets`: what may be spent on a tenant, and what was."""

from __future__ import annotations

from decimal import Decimal

from fastapi import APIRouter
from pydantic import Field

from deployments.api.auth import ReadersSpace
from deployments.api.listings import check_rate
from deployments.api.problems import documented
from deployments.api.service import TheService
from tasks.domain.budget import Level, Period, Standing, money
from tasks.domain.contract import Frozen
from tasks.domain.names import UseCaseId

router = APIRouter(tags=["budgets"])


class BudgetInfo(Frozen):
    """One limit of what may be spent, and how much of it was. Amounts are decimal texts."""

    use_case: UseCaseId | None = Field(description="whose costs count; null: all of yours", examples=["demand"])
    per: Period = Field(description="a calendar month (UTC), or each run of training or scoring")
    spent: str | None = Field(description="this month; null for a budget per run", examples=["9.61"])
    soft: str = Field(description="once so much is spent, it is told", examples=["9.60"])
    hard: str = Field(description="once so much is spent, work stops at its next batch", examples=["12.00"])
    currency: str = Field(examples=["EUR"])
    reached: Level | None = Field(description="the limit that was reached, if one was")
    message: str | None = Field(description="what work that waits says of it; null while the hard limit is not reached")


class BudgetList(Frozen):
    """Your budgets. Without any, nothing limits what may be spent."""

    budgets: tuple[BudgetInfo, ...]


@router.get("/v1/budgets", summary="What may be spent", responses=documented(401, 403, 422, 429, 503))
def budgets(service: TheService, space: ReadersSpace) -> BudgetList:
    """The limits that your provider has set for you, and what was spent of them so far this month."""
    check_rate(service, space)
    per_run = [each for each in space.records.budgets() if each.period is Period.RUN]
    standings = space.records.standings()
    idle = [Standing(budget=each, spent=Decimal(0), limit=each.hard, about="") for each in per_run]
    return BudgetList(budgets=tuple(_shown(each) for each in (*standings, *idle)))


def _shown(standing: Standing) -> BudgetInfo:
    budget = standing.budget
    monthly = budget.period is Period.MONTH
    return BudgetInfo(
        use_case=budget.use_case,
        per=budget.period,
        spent=money(standing.spent) if monthly else None,
        soft=money(min(budget.soft, standing.limit)),
        hard=money(standing.limit),
        currency=budget.currency,
        reached=standing.level,
        message=standing.message.partition("; ")[0] if standing.level is Level.HARD else None,
    )
