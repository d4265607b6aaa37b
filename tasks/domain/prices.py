"""Price books: what work costs the provider, what each tier is charged for it, and since when."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator

from tasks.domain.contract import Frozen
from tasks.domain.errors import InvalidDefinition
from tasks.domain.months import midnight
from tasks.domain.tenant import Tier

Money = Annotated[Decimal, Field(ge=0, max_digits=20, decimal_places=8)]

HOUR_S, MILLION = 3600, 1_000_000


class Quantities(Frozen):
    """What is paid for. A GB is 10⁹ bytes; a GB-month is one that is kept for a whole calendar month."""

    cpu_hours: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    gb_months: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    predictions: Annotated[Decimal, Field(ge=0)] = Decimal(0)

    def __add__(self, other: Quantities) -> Quantities:
        return Quantities(
            cpu_hours=self.cpu_hours + other.cpu_hours,
            gb_months=self.gb_months + other.gb_months,
            predictions=self.predictions + other.predictions,
        )

    def times(self, share: Decimal) -> Quantities:
        """That share of each."""
        return Quantities(
            cpu_hours=self.cpu_hours * share,
            gb_months=self.gb_months * share,
            predictions=self.predictions * share,
        )


class Prices(Frozen):
    """Prices of the three quantities, in the book's currency."""

    cpu_hour: Money
    gb_month: Money
    million_predictions: Money = Decimal(0)

    def price(self, cpu_s: float, gb_months: float = 0.0, predictions: float = 0) -> Decimal:
        """What so much comes to, unrounded."""
        return self.price_of(quantities(cpu_s, gb_months, predictions))

    def price_of(self, used: Quantities) -> Decimal:
        """What these come to, unrounded."""
        return (
            used.cpu_hours * self.cpu_hour
            + used.gb_months * self.gb_month
            + used.predictions / MILLION * self.million_predictions
        )


class Plan(Frozen):
    """What a tier is charged: a fee for each month, and what was used above the included amounts; at least the minimum.
    Of a month that was only partly in the plan, that part of fee, minimum and included amounts."""

    fee: Money = Decimal(0)
    minimum: Money = Decimal(0)
    included: Quantities = Quantities()
    prices: Prices


class Plans(Frozen):
    """One plan per tier."""

    free: Plan
    standard: Plan
    premium: Plan

    def of(self, tier: Tier) -> Plan:
        """The tier's plan."""
        plan: Plan = getattr(self, tier.value)
        return plan


class PriceBook(Frozen):
    """Prices from one day on, as one YAML file declares them."""

    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")
    timezone: str = Field(default="UTC", description="in which days and months begin")
    valid_from: date
    valid_to: date | None = Field(default=None, description="the first day on which it is not valid any more")
    cost: Prices = Field(description="what the provider itself pays")
    plans: Plans

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("there is no such time zone; write one such as UTC or Europe/Berlin")
        return name

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> PriceBook:
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise ValueError("valid_to must be later than valid_from")
        return self

    @property
    def begins(self) -> datetime:
        """When it becomes valid."""
        return midnight(self.valid_from, self.timezone)

    @property
    def ends(self) -> datetime | None:
        """When it stops being valid; None: never."""
        return None if self.valid_to is None else midnight(self.valid_to, self.timezone)


class PriceHistory(Frozen):
    """All price books, by the day on which they begin. They share a currency and a time zone; where several would be
    valid, the one that began last is."""

    books: tuple[PriceBook, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> PriceHistory:
        first = self.books[0]
        for book in self.books[1:]:
            for name in ("currency", "timezone"):
                if (ours := getattr(book, name)) != (theirs := getattr(first, name)):
                    raise InvalidDefinition(
                        f"price book {book.version!r} has another {name} than the others",
                        expected=str(theirs),
                        found=str(ours),
                        hint="bills of two currencies or calendars cannot be added up",
                    )
        days = [book.valid_from for book in self.books]
        if days != sorted(set(days)):
            raise InvalidDefinition(
                "two price books begin on the same day", hint="let the new one begin later, or reuse the version's name"
            )
        return self

    @property
    def currency(self) -> str:
        """Of all prices."""
        return self.books[0].currency

    @property
    def timezone(self) -> str:
        """In which days and months begin."""
        return self.books[0].timezone

    def find(self, moment: datetime) -> PriceBook | None:
        """The book that is valid then, if there is one."""
        valid = (book for book in reversed(self.books) if book.begins <= moment)
        return next((book for book in valid if book.ends is None or moment < book.ends), None)

    def book_at(self, moment: datetime) -> PriceBook:
        """The book that is valid then. Raises `InvalidDefinition` when there is none."""
        if (book := self.find(moment)) is None:
            raise InvalidDefinition(
                f"no price book is valid on {moment.astimezone(ZoneInfo(self.timezone)):%Y-%m-%d}",
                found=", ".join(f"{each.version} from {each.valid_from}" for each in self.books),
                hint="orchard costs prices --set FILE adds one",
            )
        return book

    def turns(self) -> list[datetime]:
        """The moments at which another book may become the valid one."""
        return sorted({turn for book in self.books for turn in (book.begins, book.ends) if turn is not None})


class Rate(Frozen):
    """The list prices of a tier, for a stretch of time."""

    tier: Tier
    valid_from: datetime
    valid_to: datetime | None
    book: PriceBook


def rates(history: PriceHistory) -> list[Rate]:
    """Which list prices hold when, without gaps and overlaps wherever a book is valid."""
    turns: list[datetime | None] = [*history.turns(), None]
    return [
        Rate(tier=tier, valid_from=start, valid_to=end, book=book)
        for start, end in pairwise(turns)
        if start is not None and (book := history.find(start)) is not None
        for tier in Tier
    ]


def quantities(cpu_s: float, gb_months: float, predictions: float) -> Quantities:
    """Measured numbers as exact ones: to a microsecond of CPU, to a byte-month."""
    return Quantities(
        cpu_hours=Decimal(round(cpu_s * 1e6)) / (HOUR_S * 1_000_000),
        gb_months=Decimal(round(gb_months * 1e9)) / 1_000_000_000,
        predictions=Decimal(round(predictions)),
    )
