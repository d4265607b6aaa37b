"""What is old enough to go, and what went."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import Field

from tasks.domain.contract import Frozen
from tasks.domain.errors import NotFound


class Horizon(Frozen):
    """What was replaced longer ago than `days` before `now` is not kept any more."""

    now: datetime
    days: int = Field(ge=1)

    @property
    def cutoff(self) -> datetime:
        """The moment before which things are old."""
        return self.now - timedelta(days=self.days)


class Removed(NamedTuple):
    """So many things of a kind that were removed, or would be, and their size, where they are files."""

    what: str
    number: int
    size_bytes: int = 0


class RetentionAccount(Frozen):
    """What went, or would go, of one use case.

    Attributes:
        busy: why it was left for the next day: a run works on it.
        error: why it did not come through.
    """

    tenant: str
    use_case: str
    removed: tuple[Removed, ...] = ()
    busy: str | None = None
    error: str | None = None


def gone_version(use_case: str, version: int, oldest: int) -> NotFound:
    """The error for a dataset version that was old enough to go."""
    return NotFound(
        f"dataset version {version} of {use_case!r} is not kept any more",
        expected=f"{oldest} or later",
        found=str(version),
        hint="retention_days of the tenant's tier says how long old versions are kept",
    )
