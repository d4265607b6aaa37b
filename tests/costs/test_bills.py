"""Bills, computed by hand: month ends, time zones, prices and tiers that change within a month, nothing used."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from deployments.costs.tables import invoice_csv
from tasks.costs.bill import Bill, bill
from tasks.costs.invoice import invoice_of
from tasks.costs.money import rounded
from tasks.costs.spans import segments_of, spans_of
from tasks.domain.errors import InvalidDefinition
from tasks.domain.months import Month
from tasks.domain.prices import Plan, Plans, PriceBook, PriceHistory, Prices, Quantities, rates
from tasks.domain.tenant import Membership, Tier

NOVEMBER = Month(year=2026, month=11)
COST = Prices(cpu_hour=Decimal("0.05"), gb_month=Decimal("0.02"))
FREE = Plan(prices=Prices(cpu_hour=Decimal(1), gb_month=Decimal(1)))
STANDARD = Plan(
    fee=Decimal(30),
    included=Quantities(cpu_hours=Decimal(10), gb_months=Decimal(3), predictions=Decimal(1_000_000)),
    prices=Prices(cpu_hour=Decimal("0.20"), gb_month=Decimal("0.10"), million_predictions=Decimal(5)),
)
PREMIUM = Plan(fee=Decimal(300), minimum=Decimal(600), prices=Prices(cpu_hour=Decimal("0.1"), gb_month=Decimal("0.1")))
PLANS = Plans(free=FREE, standard=STANDARD, premium=PREMIUM)


def book(version: str = "a", since: date = date(2026, 1, 1), **fields: object) -> PriceBook:
    return PriceBook.model_validate(
        {"version": version, "currency": "EUR", "valid_from": since, "cost": COST, "plans": PLANS, **fields}
    )


def hours(number: float, gb_months: float = 0, predictions: int = 0) -> Quantities:
    return Quantities(cpu_hours=Decimal(str(number)), gb_months=Decimal(str(gb_months)), predictions=predictions)


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def billed(
    used: dict[datetime, Quantities],
    memberships: list[Membership] | None = None,
    history: PriceHistory | None = None,
    month: Month = NOVEMBER,
    until: datetime | None = None,
) -> Bill:
    history = history or PriceHistory(books=(book(),))
    memberships = memberships or [Membership(datetime(2025, 1, 1, tzinfo=UTC), Tier.STANDARD)]
    spans = spans_of(month, history, memberships, until)
    found: dict[int, Quantities] = {}
    for moment, quantities in used.items():
        number = next(number for number, span in enumerate(spans) if span.start <= moment < span.end)
        found[number] = found.get(number, Quantities()) + quantities
    return bill(month, history.currency, segments_of(spans, history, memberships), found)


def amounts(found: Bill) -> list[tuple[str, str]]:
    return [(line.what, str(line.amount)) for line in found.lines]


def test_a_plain_month() -> None:
    found = billed({at(3): hours(12.5, 4, 900_000), at(20, 7): hours(3, 1.25, 2_100_000)})
    assert amounts(found) == [
        ("Base fee", "30.00"),
        ("Computing", "1.10"),  # 15.5 - 10 hours at 0.20
        ("Storage", "0.23"),  # 5.25 - 3 GB-months at 0.10 are 0.225: half a cent goes up
        ("Predictions", "10.00"),  # 2 of 3 million at 5
    ]
    assert found.total == Decimal("41.33")


def test_nothing_used_is_the_fee_alone() -> None:
    found = billed({})
    assert found.total == Decimal("30.00")
    computing = found.lines[1]
    assert (computing.used, computing.charged, computing.amount) == (0, 0, 0)


def test_a_minimum_is_topped_up() -> None:
    premium = [Membership(datetime(2025, 1, 1, tzinfo=UTC), Tier.PREMIUM)]
    assert amounts(billed({at(2): hours(100)}, premium)) == [
        ("Base fee", "300.00"), ("Computing", "10.00"), ("Added up to the minimum of the tier", "290.00"),
    ]  # fmt: skip
    assert billed({at(2): hours(4000)}, premium).total == Decimal("700.00")


def test_a_tenant_that_changes_its_tier_pays_each_for_its_part() -> None:
    moved = [Membership(datetime(2025, 1, 1, tzinfo=UTC), Tier.STANDARD), Membership(at(11), Tier.PREMIUM)]
    found = billed({at(10, 23): hours(4), at(11, 0): hours(50)}, moved)
    assert [(line.tier, line.what, str(line.amount)) for line in found.lines] == [
        (Tier.STANDARD, "Base fee", "10.00"),  # 10 of 30 days
        (Tier.STANDARD, "Computing", "0.13"),  # 4 less 10/3 hours, 0.6667 at 0.20
        (Tier.STANDARD, "Storage", "0.00"),
        (Tier.STANDARD, "Predictions", "0.00"),
        (Tier.PREMIUM, "Base fee", "200.00"),  # 20 of 30 days
        (Tier.PREMIUM, "Computing", "5.00"),
        (Tier.PREMIUM, "Added up to the minimum of the tier", "195.00"),  # 400 for 20 of 30 days
    ]
    assert found.total == Decimal("410.13")


def test_a_tenant_that_comes_back_to_a_tier_has_one_segment_of_it() -> None:
    back = [
        Membership(datetime(2025, 1, 1, tzinfo=UTC), Tier.STANDARD),
        Membership(at(11), Tier.FREE),
        Membership(at(21), Tier.STANDARD),
    ]
    found = billed({at(1): hours(9), at(25): hours(1), at(12): hours(1)}, back)
    assert amounts(found)[:2] == [("Base fee", "20.00"), ("Computing", "0.67")]  # 10 less 2/3 of 10 hours, at 0.20
    assert found.total == Decimal("21.67")  # and an hour at 1 in the free tier


def test_prices_that_change_within_a_month_apply_from_midnight_on() -> None:
    dearer = PLANS.model_copy(
        update={"standard": STANDARD.model_copy(update={"fee": Decimal(60), "prices": FREE.prices})}
    )
    history = PriceHistory(books=(book(), book("b", date(2026, 11, 16), plans=dearer)))
    found = billed({at(15, 23): hours(7), at(16, 0): hours(7)}, history=history)
    assert [(line.price_book, line.what, str(line.amount)) for line in found.lines if line.amount] == [
        ("a", "Base fee", "15.00"),
        ("a", "Computing", "0.40"),  # 7 less 5 hours, at 0.20
        ("b", "Base fee", "30.00"),
        ("b", "Computing", "2.00"),
    ]


def test_a_new_tenant_pays_from_its_first_day_on_and_one_that_leaves_to_its_last_moment() -> None:
    new = [Membership(at(16), Tier.STANDARD)]
    assert billed({at(20): hours(6)}, new).total == Decimal("15.20")  # half of 30, and an hour above 5
    left = billed({at(2): hours(4)}, until=at(7, 12))  # 6.5 of 30 days
    assert amounts(left)[:2] == [("Base fee", "6.50"), ("Computing", "0.37")]  # 4 less 2.1667 hours at 0.20
    assert billed({}, [Membership(datetime(2026, 12, 3, tzinfo=UTC), Tier.STANDARD)]).lines == ()


@pytest.mark.parametrize(
    ("timezone", "start", "end"),
    [
        ("UTC", "2026-10-01T00:00:00+00:00", "2026-11-01T00:00:00+00:00"),
        ("Europe/Berlin", "2026-09-30T22:00:00+00:00", "2026-10-31T23:00:00+00:00"),
        ("America/New_York", "2026-10-01T04:00:00+00:00", "2026-11-01T04:00:00+00:00"),
        ("Asia/Kolkata", "2026-09-30T18:30:00+00:00", "2026-10-31T18:30:00+00:00"),
    ],
)
def test_a_month_begins_and_ends_where_the_provider_is(timezone: str, start: str, end: str) -> None:
    october = Month(year=2026, month=10, timezone=timezone)
    assert october.start.astimezone(UTC).isoformat() == start
    assert october.end.astimezone(UTC).isoformat() == end
    assert Month.of(october.end - timedelta(seconds=1), timezone) == october
    assert Month.of(october.end, timezone) == october.following()
    assert october.following().preceding() == october
    assert len(october.days()) == 31


def test_where_clocks_change_a_month_is_an_hour_longer_and_shares_add_up() -> None:
    october = Month(year=2026, month=10, timezone="Europe/Berlin")
    assert october.seconds == (31 * 24 + 1) * 3600
    history = PriceHistory(books=(book(timezone="Europe/Berlin"),))
    turn = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)  # the hour that comes twice
    moved = [Membership(datetime(2025, 1, 1, tzinfo=UTC), Tier.STANDARD), Membership(turn, Tier.PREMIUM)]
    spans = spans_of(october, history, moved)
    assert sum(span.seconds for span in spans) == october.seconds
    assert [segment.seconds for segment in segments_of(spans, history, moved)] == [
        (turn - october.start).total_seconds(), (october.end - turn).total_seconds(),
    ]  # fmt: skip


def test_days_on_a_bill_are_those_of_the_price_books_time_zone() -> None:
    november = Month(year=2026, month=11, timezone="Europe/Berlin")
    history = PriceHistory(books=(book(timezone="Europe/Berlin"),))
    joined, left = datetime(2026, 11, 9, 23, 30, tzinfo=UTC), datetime(2026, 11, 20, 23, 15, tzinfo=UTC)
    memberships = [Membership(joined, Tier.STANDARD)]
    line = billed({}, memberships, history, november, until=left).lines[0]
    assert (f"{line.start:%Y-%m-%d %H:%M}", f"{line.end:%Y-%m-%d %H:%M}") == ("2026-11-10 00:30", "2026-11-21 00:15")
    spans = spans_of(Month(year=2026, month=10, timezone="Europe/Berlin"), history, [
        Membership(datetime(2026, 10, 25, hour, 30, tzinfo=UTC), Tier.FREE) for hour in (0, 1)  # 02:30, twice
    ])  # fmt: skip
    assert sum(span.seconds for span in spans) == (31 * 24 + 1) * 3600
    assert len(spans) == 33


def test_the_last_second_of_a_month_is_in_it() -> None:
    spans = spans_of(NOVEMBER, PriceHistory(books=(book(),)), [])
    assert (spans[0].start, spans[-1].end, len(spans)) == (at(1), datetime(2026, 12, 1, tzinfo=UTC), 30)
    assert billed({datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC): hours(11)}).lines[1].amount == Decimal("0.20")


def test_where_no_book_is_valid_nothing_can_be_charged() -> None:
    history = PriceHistory(books=(book(since=date(2026, 11, 16)),))
    with pytest.raises(InvalidDefinition, match="no price book is valid on 2026-11-01"):
        billed({}, history=history)
    ended = PriceHistory(books=(book(valid_to=date(2026, 11, 30)),))
    with pytest.raises(InvalidDefinition, match="2026-11-30"):
        billed({}, history=ended)


def test_books_must_fit_together() -> None:
    with pytest.raises(InvalidDefinition, match="another currency"):
        PriceHistory(books=(book(), book("b", date(2026, 5, 1), currency="USD")))
    with pytest.raises(InvalidDefinition, match="same day"):
        PriceHistory(books=(book(), book("b")))
    with pytest.raises(ValueError, match="valid_to must be later"):
        book(valid_to=date(2025, 1, 1))
    with pytest.raises(ValueError, match="no such time zone"):
        book(timezone="Mars/Base")


def test_list_prices_follow_one_another_without_gaps() -> None:
    books = (book(valid_to=date(2026, 3, 1)), book("b", date(2026, 2, 1), valid_to=date(2026, 6, 1)))
    found = [(rate.book.version, rate.valid_from.month, rate.valid_to) for rate in rates(PriceHistory(books=books))]
    assert [each[:2] for each in found[::3]] == [("a", 1), ("b", 2), ("b", 3)]
    assert found[-1][2] == datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("0.125", "EUR", "0.13"),
        ("0.1249", "EUR", "0.12"),
        ("99.5", "JPY", "100"),
        ("0.0005", "KWD", "0.001"),
        ("99.5", "XOF", "100"),
        ("0.0005", "IQD", "0.001"),
    ],
)
def test_amounts_are_rounded_half_up_to_the_smallest_unit(amount: str, currency: str, shown: str) -> None:
    assert str(rounded(Decimal(amount), currency)) == shown


def test_an_invoice_shows_prices_as_they_were_set() -> None:
    """All eight decimal places that a book may have: else nobody can reckon it up."""
    tiny = Plan(prices=Prices(cpu_hour=Decimal("0.12345678"), gb_month=Decimal("0.00000012")))
    history = PriceHistory(books=(book(plans=PLANS.model_copy(update={"standard": tiny})),))
    shown = invoice_of(
        billed({at(3): hours(10_000, 10_000_000)}, history=history), [], 30, number="1", customer="acme", name="Acme",
        customer_since=at(1), month="2026-11", start=at(1), end=at(30), timezone="UTC",
    )  # fmt: skip
    for row in list(csv.DictReader(io.StringIO(invoice_csv(shown))))[:-1]:
        assert rounded(Decimal(row["charged"]) * Decimal(row["price"]), "EUR") == Decimal(row["amount"]), row
