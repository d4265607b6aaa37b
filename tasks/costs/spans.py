"""A month in spans of time, within each of which day, price book and tier stay the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from tasks.domain.months import Month, Span
from tasks.domain.prices import PriceBook, PriceHistory
from tasks.domain.tenant import Membership, Tier


def spans_of(
    month: Month, history: PriceHistory, memberships: Iterable[Membership], until: datetime | None = None
) -> list[Span]:
    """The month, up to `until`, cut at midnights and wherever prices or a tier change; in the month's time zone."""
    start, end = month.start.astimezone(UTC), month.end.astimezone(UTC)
    end = end if until is None else min(end, until.astimezone(UTC))
    turns = {each.astimezone(UTC) for each in (*month.days(), *history.turns(), *(each.since for each in memberships))}
    # Compared in UTC: where clocks are set back, the time of day does not tell which comes first.
    edges = [start, *sorted(turn for turn in turns if start < turn < end), end]
    there = [edge.astimezone(ZoneInfo(month.timezone)) for edge in edges]
    return [Span(*edge) for edge in pairwise(there) if start < end]


def tier_at(memberships: Sequence[Membership], moment: datetime) -> Tier | None:
    """The tier at that moment; None before the first. `memberships` are in the order of time."""
    return next((each.tier for each in reversed(memberships) if each.since <= moment), None)


@dataclass(frozen=True)
class Segment:
    """The spans of a month in which the same book and the same tier apply."""

    book: PriceBook
    tier: Tier
    spans: tuple[int, ...]
    start: datetime
    end: datetime
    seconds: float


def segments_of(spans: Sequence[Span], history: PriceHistory, memberships: Sequence[Membership]) -> list[Segment]:
    """In the order in which they begin. What lies before the first membership is in none. Raises `InvalidDefinition`
    where no price book is valid."""
    found: dict[tuple[str, Tier], list[int]] = {}
    books: dict[str, PriceBook] = {}
    for number, span in enumerate(spans):
        if (tier := tier_at(memberships, span.start)) is None:
            continue
        book = history.book_at(span.start)
        books[book.version] = book
        found.setdefault((book.version, tier), []).append(number)
    return [
        Segment(
            books[version],
            tier,
            tuple(numbers),
            spans[numbers[0]].start,
            spans[numbers[-1]].end,
            sum(spans[number].seconds for number in numbers),
        )
        for (version, tier), numbers in found.items()
    ]
