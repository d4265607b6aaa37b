"""What everything cost in a month, and what tenants are charged for it, in entries that add up."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from tasks.costs.bill import Bill, bill
from tasks.costs.spans import segments_of, tier_at
from tasks.domain.months import Month, Span
from tasks.domain.prices import PriceHistory, Quantities, quantities
from tasks.domain.tenant import Membership

UNCHARGED = ("waste", "overhead")
"""Stages of what nobody is charged for: killed and failed work, and what serves all tenants."""

PLAN = "plan"
"""Stage of charges of tenants that used nothing."""

NOBODY = ""
"""The tenant of overhead, where no tenant used anything that it could be spread by."""

DIMENSIONS = ("tenant", "use_case", "stage", "tier", "team", "day", "month")


@dataclass(frozen=True)
class Entry:
    """What one stage of one use case used and cost in one stretch of time; money is unrounded."""

    tenant: str
    use_case: str
    stage: str
    tier: str
    team: str
    day: str
    month: str
    used: Quantities = field(default_factory=Quantities)
    waste_hours: Decimal = Decimal(0)
    requests: int = 0
    models_trained: int = 0
    models_reused: int = 0
    cost: Decimal = Decimal(0)
    overhead: Decimal = Decimal(0)
    charge: Decimal = Decimal(0)


@dataclass(frozen=True)
class MonthUse:
    """What was measured in a month. `used`: rows as `Consumption.used` gives them for `spans`; `overhead`: CPU seconds
    of what serves all, by span; `teams`: labels of (tenant, use case)."""

    month: Month
    spans: Sequence[Span]
    used: pd.DataFrame
    memberships: Mapping[str, Sequence[Membership]]
    overhead: Mapping[int, float]
    teams: Mapping[tuple[str, str], str]


def ledger(measured: MonthUse, history: PriceHistory) -> list[Entry]:
    """All entries of a month.

    Cost: CPU, waste included, and storage, at what the provider pays. Overhead is spread over tenants by the CPU that
    they used in the month. A tenant's charge, which is its bill, is spread over its entries by their cost, waste apart;
    where it has none, it is an entry of its own. Raises `InvalidDefinition` where no price book is valid.
    """
    entries = [_entry(row, measured, history) for row in measured.used.to_dict("records")]
    entries = _with_charges(entries, bills(measured, history), measured)
    return _with_overhead(entries, measured, history)


def bills(measured: MonthUse, history: PriceHistory) -> dict[str, Bill]:
    """The bill of every tenant that was in some tier during the month."""
    by_tenant: dict[str, dict[int, Quantities]] = {}
    for row in measured.used.to_dict("records"):
        if row["stage"] not in UNCHARGED:
            spans = by_tenant.setdefault(row["tenant"], {})
            spans[row["span"]] = spans.get(row["span"], Quantities()) + _quantities(row, measured.month)
    found = {}
    for tenant, memberships in measured.memberships.items():
        segments = segments_of(measured.spans, history, memberships)
        if segments:
            found[tenant] = bill(measured.month, history.currency, segments, by_tenant.get(tenant, {}))
    return found


def grouped(entries: Iterable[Entry], by: Sequence[str]) -> list[Entry]:
    """Sums of the entries by some of `DIMENSIONS`, the others left empty, in the order of those named."""
    sums: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        key = tuple(getattr(entry, name) for name in by)
        known = sums.get(key)
        if known is None:
            emptied: dict[str, Any] = dict.fromkeys((name for name in DIMENSIONS if name not in by), "")
            sums[key] = replace(entry, **emptied)
        else:
            sums[key] = _sum(known, entry)
    return [sums[key] for key in sorted(sums)]


def total(entries: Iterable[Entry]) -> Entry:
    """The sum of all."""
    return next(iter(grouped(entries, ())), Entry("", "", "", "", "", "", ""))


def _sum(one: Entry, other: Entry) -> Entry:
    numbers = ("used", "waste_hours", "requests", "models_trained", "models_reused", "cost", "overhead", "charge")
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in numbers})


def _entry(row: Mapping[Hashable, Any], measured: MonthUse, history: PriceHistory) -> Entry:
    span = measured.spans[row["span"]]
    tenant, use_case = str(row["tenant"]), str(row["use_case"])
    used, wasted = _quantities(row, measured.month), quantities(row["waste_s"], 0, 0)
    tier = tier_at(measured.memberships.get(tenant, ()), span.start)
    return Entry(
        tenant,
        use_case,
        str(row["stage"]),
        "" if tier is None else tier.value,
        measured.teams.get((tenant, use_case), ""),
        _day(span.start, history.timezone),
        str(measured.month),
        used,
        wasted.cpu_hours,
        int(row["requests"]),
        int(row["models_trained"]),
        int(row["models_reused"]),
        history.book_at(span.start).cost.price_of(used + wasted),
    )


def _quantities(row: Mapping[Hashable, Any], month: Month) -> Quantities:
    gb_months = row["byte_seconds"] / 1e9 / month.seconds
    return quantities(row["cpu_s"], gb_months, row["predictions"])


def _day(moment: datetime, timezone: str) -> str:
    return f"{moment.astimezone(ZoneInfo(timezone)):%Y-%m-%d}"


def _with_charges(entries: list[Entry], charged: Mapping[str, Bill], measured: MonthUse) -> list[Entry]:
    weights = {
        tenant: sum((each.cost for each in entries if each.stage not in UNCHARGED), Decimal(0))
        for tenant, entries in _by_tenant(entries).items()
    }
    found = []
    for entry in entries:
        weight = weights[entry.tenant]
        if entry.stage not in UNCHARGED and weight and entry.tenant in charged:
            entry = replace(entry, charge=charged[entry.tenant].total * entry.cost / weight)
        found.append(entry)
    for tenant, its_bill in charged.items():
        if its_bill.total and not weights.get(tenant):
            tier, start = its_bill.lines[0].tier.value, its_bill.lines[0].start
            day = _day(start, measured.month.timezone)
            found.append(Entry(tenant, "", PLAN, tier, "", day, str(measured.month), charge=its_bill.total))
    return found


def _by_tenant(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.tenant, []).append(entry)
    return found


def _with_overhead(entries: list[Entry], measured: MonthUse, history: PriceHistory) -> list[Entry]:
    cost = Decimal(0)
    for number, cpu_s in measured.overhead.items():
        cost += history.book_at(measured.spans[number].start).cost.price(cpu_s)
    if not cost:
        return entries
    hours = sum((entry.used.cpu_hours + entry.waste_hours for entry in entries), Decimal(0))
    if not hours:
        day = _day(measured.month.start, history.timezone)
        return [*entries, Entry(NOBODY, "", "overhead", "", "", day, str(measured.month), overhead=cost)]
    return [replace(entry, overhead=cost * (entry.used.cpu_hours + entry.waste_hours) / hours) for entry in entries]
