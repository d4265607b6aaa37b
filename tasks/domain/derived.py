"""Derived features: a closed list of declared transformations. Tenants write no code and no expressions.

The computation lives in `tasks/scorer.py`, so that training, batch and online scoring share it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.domain.contract import Frozen
from tasks.domain.names import ColumnName


class DatePart(Frozen):
    """A part of a date or timestamp (UTC): month and weekday are cyclic, so prefer them as categorical."""

    op: Literal["date_part"] = Field(alias="as")
    source: ColumnName = Field(alias="from")
    part: Literal["year", "quarter", "month", "week", "day", "day_of_year", "weekday", "hour", "minute"]

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


class HhmmToMinutes(Frozen):
    """A clock time written as a number, 1437, in minutes since midnight, 877."""

    op: Literal["hhmm_to_minutes"] = Field(alias="as")
    source: ColumnName = Field(alias="from")

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


class Difference(Frozen):
    """left - right; with `wrap`, modulo that period (1440 for minutes of a day), always in [0, wrap)."""

    op: Literal["difference"] = Field(alias="as")
    left: ColumnName
    right: ColumnName
    wrap: float | None = Field(default=None, gt=0)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.left, self.right)


class Ratio(Frozen):
    """left / right; missing where right is 0."""

    op: Literal["ratio"] = Field(alias="as")
    left: ColumnName
    right: ColumnName

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.left, self.right)


class Logarithm(Frozen):
    """log(1 + x); missing where x <= -1."""

    op: Literal["log1p"] = Field(alias="as")
    source: ColumnName = Field(alias="from")

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


class Threshold(Frozen):
    """1 where the source is above the limit, 0 where it is not, missing where it is missing: a class target."""

    op: Literal["threshold"] = Field(alias="as")
    source: ColumnName = Field(alias="from")
    above: float

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


class Lookup(Frozen):
    """The value that a small table of the tenant has for the source's value (as text); missing where it has none."""

    op: Literal["lookup"] = Field(alias="as")
    source: ColumnName = Field(alias="from")
    table: dict[str, float | str] = Field(min_length=1, max_length=10_000)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


Derived = Annotated[
    DatePart | HhmmToMinutes | Difference | Ratio | Logarithm | Threshold | Lookup, Field(discriminator="op")
]
