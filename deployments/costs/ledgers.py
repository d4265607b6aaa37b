"""The ledger of a month: what the databases measured, priced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.database.cluster import Cluster
from infra.database.consumption import Consumption
from infra.database.operator import Operator
from infra.database.prices import PriceBooks
from tasks.costs.ledger import Entry, MonthUse, ledger
from tasks.costs.spans import spans_of
from tasks.domain.errors import InvalidDefinition
from tasks.domain.months import Month
from tasks.domain.prices import PriceHistory


@dataclass(frozen=True)
class Priced:
    """Entries of some months, and the prices that they are in."""

    history: PriceHistory
    entries: list[Entry]


def parse_month(text: str, history: PriceHistory) -> Month:
    """`2026-11`; without a text, the month that it is now. Raises `InvalidDefinition`."""
    if not text:
        return Month.of(datetime.now(UTC), history.timezone)
    try:
        parsed = datetime.strptime(text.strip(), "%Y-%m")
        return Month(year=parsed.year, month=parsed.month, timezone=history.timezone)
    except ValueError:
        raise InvalidDefinition("this is no month", expected="one such as 2026-11", found=text) from None


def measure(
    cluster: Cluster, month: Month, history: PriceHistory, tenant: str | None = None, until: datetime | None = None
) -> MonthUse:
    """What was measured in a month so far, of all tenants or of one, which then may leave at `until`. Raises
    `InvalidDefinition` for a month to come."""
    if month.start > datetime.now(UTC):
        raise InvalidDefinition(f"{month} is still to come", expected="a month that has begun")
    consumption = Consumption(cluster)
    memberships = {name: since for name, since in consumption.memberships().items() if tenant is None or name == tenant}
    spans = spans_of(month, history, (each for since in memberships.values() for each in since), until)
    overhead: dict[int, float] = {}
    if tenant is None:
        for row in consumption.overhead(spans).to_dict("records"):
            overhead[row["span"]] = overhead.get(row["span"], 0.0) + row["cpu_s"]
    return MonthUse(
        month,
        spans,
        consumption.used(spans, tenant),
        memberships,
        overhead,
        _teams(cluster, tenant),
    )


def price(cluster: Cluster, months: Iterable[str] = ("",)) -> Priced:
    """The ledgers of some months, each once, of all tenants."""
    history = PriceBooks(cluster).all()
    parsed = dict.fromkeys(parse_month(month, history) for month in months)
    return Priced(history, [entry for month in parsed for entry in ledger(measure(cluster, month, history), history)])


def _teams(cluster: Cluster, tenant: str | None) -> dict[tuple[str, str], str]:
    operator = Operator(cluster)
    return {
        (each.id, use_case.id): use_case.team
        for each in (operator.tenants() if tenant is None else [operator.tenant(tenant)])
        for use_case in each.use_cases
        if use_case.team
    }
