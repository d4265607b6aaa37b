"""Budgets are watched from outside the runs: what was reached is told, and whose new runs are refused is noted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flows.events import announce_budget
from infra.database.budgets import Budgets, Held
from infra.database.cluster import connected_cluster
from infra.settings import Settings, load_settings
from tasks.domain.budget import Level, Standing

logger = logging.getLogger(__name__)


def review(settings: Settings | None = None) -> list[Held]:
    """Compares what was spent with all budgets; returns whose new runs are refused from now on.

    Called before jobs are handed out and after work was done, so every few seconds on a platform that is up. The
    platform's budget is shared out anew each time. Safe to run twice at once: what was told is not told again.
    """
    budgets = Budgets(connected_cluster(settings or load_settings()))
    standings = budgets.standings(budgets.all())
    shares = budgets.share_platform(standings)
    for standing in standings:
        for level in _reached(standing):
            if budgets.tell_once(standing, level):
                announce_budget(standing, level)
    held = [
        Held(tenant, standing.use_case or standing.budget.use_case or "", standing.message)
        for standing in (*standings, *shares)
        if standing.level is Level.HARD and standing.refuses and (tenant := standing.tenant or standing.budget.tenant)
    ]
    budgets.hold(held)
    return held


def try_to_review(settings: Settings | None = None) -> None:
    """As `review`, but nothing else fails by it: who was held stays held, and each run asks for itself."""
    try:
        review(settings)
    except Exception as error:  # the scheduled dispatch does it a few seconds later
        logger.warning("budgets were not reviewed: %s", error)


class _Pace:
    """Lets budgets be reviewed for a tenth of the time at most: adding up a month of many tenants takes a while."""

    LONG_S = 0.2

    def __init__(self) -> None:
        self._next_at = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._next_at

    def took(self, seconds: float) -> None:
        self._next_at = time.monotonic() + (9 * seconds if seconds > self.LONG_S else 0.0)


_pace = _Pace()


def review_in_passing(settings: Settings | None = None) -> None:
    """As `try_to_review`, for whoever comes by every few seconds."""
    if _pace.due():
        began = time.monotonic()
        try_to_review(settings)
        _pace.took(time.monotonic() - began)


@contextmanager
def reviewed_budgets() -> Iterator[None]:
    """Reviews budgets before the block, for work that no dispatch has handed out, and when it has ended, however it
    did."""
    try_to_review()
    try:
        yield
    finally:
        try_to_review()


def _reached(standing: Standing) -> list[Level]:
    limits = {Level.SOFT: standing.budget.soft, Level.HARD: standing.budget.hard}
    return [level for level, limit in limits.items() if standing.spent >= limit]
