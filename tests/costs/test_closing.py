"""A month is closed when nothing of it can be booked any more, and only then billed for good."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deployments.costs.invoices import check_over
from tasks.domain.errors import InvalidDefinition
from tasks.domain.months import Month


@pytest.mark.parametrize(("timezone", "hour"), [("UTC", 0), ("America/New_York", 4)])
def test_a_month_is_over_a_little_after_its_last_midnight(timezone: str, hour: int) -> None:
    october = Month(year=2026, month=10, timezone=timezone)
    midnight = datetime(2026, 11, 1, hour, tzinfo=UTC)
    with pytest.raises(InvalidDefinition, match="2026-10 is not over") as refused:
        check_over(october, midnight.replace(minute=4))
    assert "from 2026-11-01 00:05" in str(refused.value)
    check_over(october, midnight.replace(minute=5))
