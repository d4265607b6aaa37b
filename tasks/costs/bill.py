"""What a tenant is charged for a month: plan by plan, line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial

from tasks.costs.money import rounded
from tasks.costs.spans import Segment
from tasks.domain.contract import Frozen
from tasks.domain.months import Month
from tasks.domain.prices import MILLION, Quantities
from tasks.domain.tenant import Tier

MEASURES = (
    ("cpu_hours", "Computing", "CPU hours", "cpu_hour", Decimal(1)),
    ("gb_months", "Storage", "GB-months", "gb_month", Decimal(1)),
    ("predictions", "Predictions", "rows answered", "million_predictions", Decimal(MILLION)),
)
"""Quantity, what a bill calls it, its unit, its price, and for how many that price is."""


class Line(Frozen):
    """One line of a bill. `amount` is rounded, half up, to the currency's smallest unit; nothing else is."""

    start: datetime
    end: datetime
    tier: Tier
    price_book: str
    what: str
    unit: str = ""
    used: Decimal | None = None
    included: Decimal | None = None
    charged: Decimal | None = None
    price: Decimal | None = None
    price_per: Decimal | None = None
    amount: Decimal


class Bill(Frozen):
    """The lines of a month, and their sum."""

    currency: str
    lines: tuple[Line, ...]

    @property
    def total(self) -> Decimal:
        """The sum of the lines as they are printed."""
        return sum((line.amount for line in self.lines), Decimal(0))


def bill(month: Month, currency: str, segments: Sequence[Segment], used: Mapping[int, Quantities]) -> Bill:
    """The bill of one tenant. `used` is what is charged for, by span; of killed and failed work that is nothing.

    Of fee, minimum and included amounts, each segment has the part that it is of the whole month; what one segment
    leaves of its included amounts is not carried over to another.
    """
    lines: list[Line] = []
    for segment in segments:
        share = Decimal(str(segment.seconds)) / Decimal(str(month.seconds))
        total = sum((used.get(number, Quantities()) for number in segment.spans), Quantities())
        lines += _lines(segment, share, total, currency)
    return Bill(currency=currency, lines=tuple(lines))


def _lines(segment: Segment, share: Decimal, used: Quantities, currency: str) -> list[Line]:
    plan = segment.book.plans.of(segment.tier)
    line = partial(Line, start=segment.start, end=segment.end, tier=segment.tier, price_book=segment.book.version)
    lines: list[Line] = []
    if plan.fee:
        lines.append(line(what="Base fee", amount=rounded(plan.fee * share, currency)))
    included = plan.included.times(share)
    for name, what, unit, price_name, per in MEASURES:
        so_much, free, price = getattr(used, name), getattr(included, name), getattr(plan.prices, price_name)
        if not so_much and not free:
            continue
        charged = max(Decimal(0), so_much - free)
        lines.append(
            line(
                what=what, unit=unit, used=so_much, included=free, charged=charged, price=price,
                price_per=per, amount=rounded(charged / per * price, currency),
            )
        )  # fmt: skip
    least, so_far = rounded(plan.minimum * share, currency), sum((line.amount for line in lines), Decimal(0))
    if so_far < least:
        lines.append(line(what="Added up to the minimum of the tier", amount=least - so_far))
    return lines
