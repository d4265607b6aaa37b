"""An invoice: what one tenant pays for one month, and what it used."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from tasks.costs.bill import Bill, Line
from tasks.costs.ledger import PLAN, UNCHARGED, Entry, grouped
from tasks.domain.contract import Frozen


class UseCaseUse(Frozen):
    """What a use case used in the month."""

    use_case: str
    team: str
    cpu_hours: Decimal
    gb_months: Decimal
    predictions: int
    requests: int
    models_trained: int


class DayUse(Frozen):
    """What all use cases used on one day. A GB-day is a GB that is kept for a day."""

    day: str
    cpu_hours: Decimal
    gb_days: Decimal
    predictions: int


class Invoice(Frozen):
    """One tenant's month, or what it had of it. `issued_at` None: it is a preview."""

    number: str
    customer: str
    customer_since: datetime
    name: str
    month: str
    start: datetime
    end: datetime
    timezone: str
    currency: str
    lines: tuple[Line, ...]
    total: Decimal
    use_cases: tuple[UseCaseUse, ...]
    days: tuple[DayUse, ...]
    issued_at: datetime | None = None

    @property
    def preview(self) -> bool:
        """Whether it may still change."""
        return self.issued_at is None


def invoice_of(billed: Bill, entries: Iterable[Entry], days_in_month: int, **facts: Any) -> Invoice:
    """The invoice of a bill. `entries`: the tenant's own, of the same month; `facts`: the fields that they do not
    tell. What nobody is charged for is not on it."""
    charged = [entry for entry in entries if entry.stage not in (*UNCHARGED, PLAN)]
    use_cases = tuple(
        UseCaseUse(
            use_case=entry.use_case,
            team=entry.team,
            cpu_hours=entry.used.cpu_hours,
            gb_months=entry.used.gb_months,
            predictions=int(entry.used.predictions),
            requests=entry.requests,
            models_trained=entry.models_trained,
        )
        for entry in grouped(charged, ("use_case", "team"))
    )
    days = tuple(
        DayUse(
            day=entry.day,
            cpu_hours=entry.used.cpu_hours,
            gb_days=entry.used.gb_months * days_in_month,
            predictions=int(entry.used.predictions),
        )
        for entry in grouped(charged, ("day",))
    )
    return Invoice(
        currency=billed.currency, lines=billed.lines, total=billed.total, use_cases=use_cases, days=days, **facts
    )
