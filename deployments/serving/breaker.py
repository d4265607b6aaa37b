"""Who serves asks the database through this: it answers, or fails in time, and then nobody asks for a while.

A circuit breaker (Nygard 2007). Whoever keeps up with what serves asks all the while, in a thread of its own, so no
request is the one that finds out whether the database is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from infra.database.deadline import within
from tasks.domain.errors import DatabaseUnavailable

Found = TypeVar("Found")

WITHIN_S = 1.0
OPEN_S = 8.0
"""Longer than it takes until the next one that keeps up has asked in vain again."""


class Breaker:
    """Of one process; threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._until = clock, 0.0

    def is_open(self) -> bool:
        """Whether nobody asks at the moment."""
        return self._clock() < self._until

    def ask(self, question: Callable[[], Found], *, anyway: bool = False, within_s: float = WITHIN_S) -> Found:
        """The answer. Raises `DatabaseUnavailable`, without asking if the last one who did got no answer, unless it is
        to be asked `anyway`."""
        if self.is_open() and not anyway:
            raise DatabaseUnavailable("the database did not answer a moment ago", hint="try again in some seconds")
        try:
            with within(within_s):
                found = question()
        except DatabaseUnavailable:
            self._until = self._clock() + OPEN_S
            raise
        self._until = 0.0
        return found
