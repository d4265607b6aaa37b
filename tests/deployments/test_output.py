"""Tables that people read in a terminal: what fits is left whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.cli.output import column_widths, console, show, shown

KEY = "59ac5c67f9796642"
ROWS = [
    {"key_id": KEY, "status": "rejected", "partitions": 12_345, "error": "the file looks like one JSON array " * 2},
    {"key_id": KEY, "status": "done", "partitions": None, "error": ""},
]


def lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int) -> list[str]:
    monkeypatch.setattr(console, "_width", width)
    show(ROWS, as_json=False)
    return capsys.readouterr().out.splitlines()


def test_words_stay_whole_where_the_table_can_be_made_to_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lines(capsys, monkeypatch, 52)
    assert max(map(len, found)) <= 52
    for word in (KEY, "rejected", "partitions", "12,345", "array"):
        assert any(word in line for line in found), found


def test_a_narrow_terminal_loses_no_character(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lines(capsys, monkeypatch, 24)
    assert max(map(len, found)) <= 24
    assert sum(line.count("5") + line.count("9") for line in found) == 2 * (KEY.count("5") + KEY.count("9")) + 1
    assert sum(line.count("J") for line in found) == 2


@given(
    st.integers(1, 6).flatmap(
        lambda columns: st.lists(
            st.lists(st.text("ab ", max_size=30), min_size=columns, max_size=columns), min_size=1, max_size=5
        )
    ),
    st.integers(6, 120),
)
def test_columns_take_the_room_that_there_is_and_no_more(table: list[list[str]], room: int) -> None:
    widths = column_widths(table, room)
    wanted = [max(1, *map(len, column)) for column in zip(*table, strict=True)]
    assert all(width >= 1 for width in widths)
    assert sum(widths) <= max(room, len(widths))
    if sum(wanted) <= room:
        assert all(width >= each for width, each in zip(widths, wanted, strict=True))


def test_points_in_time_are_told_to_the_minute_in_utc() -> None:
    at = datetime(2026, 11, 29, 13, 52, 59, 999, tzinfo=timezone(timedelta(hours=1)))
    assert shown(at) == "2026-11-29 12:52"
    assert shown(at.astimezone(UTC)) == "2026-11-29 12:52"
