"""Spans of time and moments, as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"([0-9]{1,6})([smhdw])")


def span(text: str) -> timedelta:
    """`90d`, `24h`, `30m`. Raises `typer.BadParameter`."""
    if (found := _SPAN.fullmatch(text.strip())) is None:
        raise typer.BadParameter(f"{text!r} is no span of time such as 90d, 24h or 30m")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def moment(text: str) -> datetime:
    """`2026-11-01`, `2026-11-01T12:00`, in UTC unless it says otherwise; or how long ago, `24h`. Raises
    `typer.BadParameter`."""
    if _SPAN.fullmatch(text.strip()):
        return datetime.now(UTC) - span(text)
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a time such as 2026-11-01T12:00 nor a span such as 24h"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
