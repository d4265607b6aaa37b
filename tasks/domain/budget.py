"""Budgets: how much may be spent on whom, when that is told, and when work stops. Money is decimal."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field, model_validator

from tasks.domain.contract import Frozen
from tasks.domain.errors import InvalidDefinition
from tasks.domain.names import TenantId, UseCaseId

SOFT_SHARE = Decimal("0.8")
"""Of the hard limit: where the soft one is, unless it is set."""

PLACES = Decimal("0.000001")
"""Limits are kept to a millionth of the currency's unit."""


OVER_BUDGET = "over budget"
"""How it begins, whatever is said of work that may not go on."""


class Period(StrEnum):
    """What a budget is for."""

    MONTH = "month"  # a calendar month, in UTC
    RUN = "run"  # each run of training or scoring, over all of its attempts


class Level(StrEnum):
    """Which limit was reached."""

    SOFT = "soft"  # it is told, and work goes on
    HARD = "hard"  # work stops


class Budget(Frozen):
    """Limits of what one use case, one tenant, or the whole platform may cost.

    Attributes:
        tenant, use_case: whose costs count; without a use case the tenant's, without a tenant everybody's.
        hard: once so much is spent, no run begins, and a running one stops at its next batch.
        soft: once so much is spent, it is told.
        priority: of a tenant, when the platform's budget is shared out; the highest comes first.
    """

    tenant: TenantId | None = None
    use_case: UseCaseId | None = None
    period: Period = Period.MONTH
    hard: Decimal = Field(gt=0, max_digits=18, decimal_places=6)
    soft: Decimal = Field(ge=0, max_digits=18, decimal_places=6)
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    priority: int = Field(default=0, ge=0, le=1000)

    @model_validator(mode="after")
    def _makes_sense(self) -> Budget:
        if self.soft > self.hard:
            raise ValueError(f"the soft limit {self.soft} is above the hard one {self.hard}")
        if self.tenant is None and (self.use_case is not None or self.period is Period.RUN):
            raise ValueError("the platform's budget is per month, and for no use case")
        if self.priority and (self.tenant is None or self.use_case is not None or self.period is Period.RUN):
            raise ValueError("a priority belongs to a tenant's budget per month")
        return self

    @property
    def scope(self) -> str:
        """What it is for, as commands name it: `acme demand`, `acme`, `--platform`."""
        return " ".join(filter(None, (self.tenant, self.use_case))) or "--platform"

    def covers(self, use_case: str) -> bool:
        """Whether the costs of that use case of its tenant count."""
        return self.use_case in (None, use_case)


def soft_limit(text: str | None, hard: Decimal) -> Decimal:
    """An amount, or a share of the hard limit such as `80%`. Raises `InvalidDefinition`."""
    if text is None:
        return (hard * SOFT_SHARE).quantize(PLACES)
    share = text.strip().endswith("%")
    value = amount(text.strip().removesuffix("%"))
    return (hard * value / 100).quantize(PLACES) if share else value


def amount(text: str) -> Decimal:
    """Money as it is typed. Raises `InvalidDefinition`."""
    try:
        value = Decimal(text.strip())
        known = value.is_finite() and value >= 0 and value == value.quantize(PLACES)
    except InvalidOperation:  # no number, or one with too many digits
        known = False
    if not known:
        raise InvalidDefinition("this is no amount of money", expected="such as 12.50", found=text)
    return value


def money(value: Decimal) -> str:
    """An amount for people: to the cent, and finer where it is less than one unit."""
    rounded = value.quantize(Decimal("0.01") if abs(value) >= 1 or not value else PLACES, ROUND_HALF_UP)
    whole, _, cents = f"{rounded:f}".partition(".")
    return f"{whole}.{cents.rstrip('0').ljust(2, '0')}"


class Standing(Frozen):
    """What was spent of a budget.

    Attributes:
        spent: so far, by what was metered and the prices of that time.
        limit: where work stops: the hard limit or, of the platform's budget, the tenant's share.
        about: the month (`2026-11`) or the run (`run 17`) that is meant.
        tenant: whose share it is, of the platform's budget.
        use_case: whose run it is, of a budget per run.
        refuses: whether new runs are refused once the hard limit is reached. Of a budget per run, only a run that was
            stopped does so: the next one would be the same.
    """

    budget: Budget
    spent: Decimal
    limit: Decimal
    about: str
    tenant: TenantId | None = None
    use_case: UseCaseId | None = None
    refuses: bool = True

    @property
    def level(self) -> Level | None:
        """The limit that was reached, if one was."""
        if self.spent >= self.limit:
            return Level.HARD
        return Level.SOFT if self.spent >= self.budget.soft and self.tenant is None else None

    @property
    def message(self) -> str:
        """The state of who has reached the hard limit, and what mends it."""
        when = "this month" if self.budget.period is Period.MONTH else f"in {self.about}"
        whose = f", {self.tenant}'s share of the platform's budget" if self.tenant is not None else ""
        per = " --per run" if self.budget.period is Period.RUN else ""
        return (
            f"{OVER_BUDGET}: {money(self.spent)} of {money(self.limit)} {self.budget.currency} {when}{whose}; "
            f"do next: raise it with orchard budgets set {self.budget.scope}{per} --hard AMOUNT"
        )


class Claim(NamedTuple):
    """What a tenant has of the platform's budget, and wants of it. `need`: what is left of its own budget."""

    tenant: str
    spent: Decimal
    priority: int
    need: Decimal


def share_out(hard: Decimal, claims: Iterable[Claim]) -> dict[str, Decimal]:
    """Where each tenant has to stop, so that all together stay within the platform's hard limit.

    What nobody has spent yet goes to the highest priority first: a tenant may spend all of it that those of higher
    priority do not need. They need what is left of their own budgets. Tenants of equal priority (0, where none is set)
    share what is left for them: who comes first is served first.
    """
    known = sorted(claims, key=lambda each: -each.priority)
    left = max(Decimal(0), hard - sum((each.spent for each in known), Decimal(0)))
    limits: dict[str, Decimal] = {}
    for priority in dict.fromkeys(each.priority for each in known):
        equals = [each for each in known if each.priority == priority]
        limits |= {each.tenant: each.spent + left for each in equals}
        left = max(Decimal(0), left - sum((each.need for each in equals), Decimal(0)))
    return limits
