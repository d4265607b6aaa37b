"""Months and other stretches of time, in whichever time zone days begin."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pydantic import Field

from tasks.domain.contract import Frozen


def midnight(day: date, timezone: str) -> datetime:
    """When the day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(timezone))


class Span(NamedTuple):
    """A stretch of time, its end excluded."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end.timestamp() - self.start.timestamp()


class Month(Frozen):
    """A calendar month in some time zone."""

    year: int = Field(ge=1970, le=9998)
    month: int = Field(ge=1, le=12)
    timezone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @classmethod
    def of(cls, moment: datetime, timezone: str) -> Month:
        """The month in which the moment lies."""
        there = moment.astimezone(ZoneInfo(timezone))
        return cls(year=there.year, month=there.month, timezone=timezone)

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return midnight(date(self.year, self.month, 1), self.timezone)

    @property
    def end(self) -> datetime:
        """The first moment of the next one."""
        return self.following().start

    @property
    def seconds(self) -> float:
        """Its length; where clocks change, an hour more or less."""
        return self.end.timestamp() - self.start.timestamp()

    def following(self) -> Month:
        """The next month."""
        later = date(self.year, self.month, 28) + timedelta(days=4)
        return Month(year=later.year, month=later.month, timezone=self.timezone)

    def preceding(self) -> Month:
        """The month before."""
        earlier = date(self.year, self.month, 1) - timedelta(days=1)
        return Month(year=earlier.year, month=earlier.month, timezone=self.timezone)

    def days(self) -> list[datetime]:
        """The moments at which its days begin."""
        day, last = date(self.year, self.month, 1), self.following()
        found = []
        while (day.year, day.month) != (last.year, last.month):
            found.append(midnight(day, self.timezone))
            day += timedelta(days=1)
        return found
