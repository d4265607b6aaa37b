"""Fetching what is new from a tenant's own database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlalchemy import make_url, text

from infra.database.cluster import Cluster
from infra.database.connect import session
from infra.source import fetch
from tasks.domain.errors import ContractBroken, InvalidDefinition, Retryable

QUERY = "SELECT id, changed_at, amount FROM source.sales WHERE changed_at > :watermark"


@pytest.fixture
def url(postgres: Cluster) -> Iterator[str]:
    """A database with a table of five rows, one an hour."""
    with session(postgres.operator_url) as connection:
        connection.execute(text("CREATE SCHEMA source"))
        connection.execute(
            text(
                "CREATE TABLE source.sales AS SELECT n AS id, timestamptz '2026-01-01Z' + n * interval '1 hour'"
                " AS changed_at, n * 1.5::double precision AS amount FROM generate_series(1, 5) AS n"
            )
        )
        try:
            yield postgres.operator_url
        finally:
            connection.execute(text("DROP SCHEMA source CASCADE"))


def test_only_what_is_new_is_fetched(url: str, tmp_path: Path) -> None:
    into = tmp_path / "rows.parquet"
    first = fetch(url, QUERY, "changed_at", "2026-01-01T00:00:00Z", into)
    assert first.rows == 5
    assert first.watermark == dt.datetime(2026, 1, 1, 5, tzinfo=dt.UTC)
    assert sorted(pq.read_table(into)["id"].to_pylist()) == [1, 2, 3, 4, 5]
    nothing = fetch(url, QUERY, "changed_at", first.watermark, tmp_path / "none.parquet")
    assert nothing == (0, first.watermark)
    assert not (tmp_path / "none.parquet").exists()
    later = fetch(url, QUERY, "changed_at", dt.datetime(2026, 1, 1, 3, tzinfo=dt.UTC), into)
    assert (later.rows, later.watermark) == (2, first.watermark)


def test_numbers_can_be_watermarks(url: str, tmp_path: Path) -> None:
    query = "SELECT * FROM source.sales WHERE id > :watermark"
    assert fetch(url, query, "id", 3, tmp_path / "a.parquet") == (2, 5)


def test_rows_of_the_last_day_that_come_later_are_fetched_and_the_same_rows_are_the_same_file(
    url: str, tmp_path: Path
) -> None:
    day = "(changed_at AT TIME ZONE 'UTC')::date"
    query = f"SELECT id, {day} AS day FROM source.sales WHERE {day} >= :watermark"
    first, again, more = (tmp_path / f"{name}.parquet" for name in ("first", "again", "more"))
    found = fetch(url, query, "day", "2026-01-01", first)
    assert found == (5, dt.date(2026, 1, 1))
    assert fetch(url, query, "day", found.watermark, again) == found
    assert again.read_bytes() == first.read_bytes()
    with session(url) as connection:
        connection.execute(text("INSERT INTO source.sales VALUES (6, '2026-01-01T23:00Z', 9)"))
    assert fetch(url, query, "day", found.watermark, more) == (6, dt.date(2026, 1, 1))


def test_a_column_that_has_no_value_for_long_keeps_its_type(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import infra.source

    monkeypatch.setattr(infra.source, "CHUNK_ROWS", 2)  # and not a hundred thousand
    query = (
        "SELECT id, CASE WHEN id > 2 THEN 'x' || id END AS note, CASE WHEN id > 3 THEN id END AS number"
        " FROM source.sales WHERE id > :watermark ORDER BY id"
    )
    into = tmp_path / "a.parquet"
    assert fetch(url, query, "id", 0, into) == (5, 5)
    table = pq.read_table(into)
    assert table["id"].to_pylist() == [1, 2, 3, 4, 5]
    assert table["note"].to_pylist() == [None, None, "x3", "x4", "x5"]
    assert table["number"].to_pylist() == [None, None, None, 4, 5]
    assert list(tmp_path.iterdir()) == [into]


def test_rows_without_a_watermark_do_not_move_it(url: str, tmp_path: Path) -> None:
    since = dt.datetime(2026, 1, 1, 2, tzinfo=dt.UTC)
    query = (
        "SELECT id, CASE WHEN id = 1 THEN NULL ELSE changed_at END AS changed_at FROM source.sales"
        " WHERE (changed_at > :watermark OR id = 1) AND id <= {most}"
    )
    into = tmp_path / "a.parquet"
    assert fetch(url, query.format(most=1), "changed_at", since, into) == (1, since)
    assert fetch(url, query.format(most=5), "changed_at", since, into) == (4, dt.datetime(2026, 1, 1, 5, tzinfo=dt.UTC))


def test_mistakes_are_told_without_the_password(url: str, tmp_path: Path) -> None:
    password = make_url(url).password
    into = tmp_path / "a.parquet"
    with pytest.raises(ContractBroken, match="lacks its watermark"):
        fetch(url, QUERY, "updated", "2026-01-01", into)
    with pytest.raises(InvalidDefinition, match=r"(?s)did not work.*no_such_table") as caught:
        fetch(url, "SELECT * FROM no_such_table WHERE x > :watermark", "x", 1, into)
    assert password
    assert password not in str(caught.value)
    with pytest.raises(InvalidDefinition, match="cannot be reached with this URL"):
        fetch("nonsense://a:b@c/d", QUERY, "changed_at", 1, into)
    away = "postgresql+psycopg://a:hidden@127.0.0.1:1/d"
    with pytest.raises(Retryable, match="did not work") as caught_away:
        fetch(away, QUERY, "changed_at", 1, into)
    assert "hidden" not in str(caught_away.value)


def test_the_words_of_a_database_with_personal_data_are_not_told(url: str, tmp_path: Path) -> None:
    query = "SELECT 'anna'::integer AS x WHERE 1 > :watermark"
    with pytest.raises(InvalidDefinition, match="anna"):
        fetch(url, query, "x", 0, tmp_path / "a.parquet")
    with pytest.raises(InvalidDefinition, match="InvalidTextRepresentation") as caught:
        fetch(url, query, "x", 0, tmp_path / "a.parquet", quotable=False)
    assert "anna" not in str(caught.value)


def test_what_is_missing_at_first_may_come_later(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.source.CHUNK_ROWS", 2)  # a chunk is read as what its rows are
    query = """
        SELECT id, CASE WHEN id > 2 THEN 'late' END AS note, CASE WHEN id > 3 THEN id END AS number,
               date '2026-01-01' + id AS day, CASE WHEN id > 4 THEN changed_at END AS sold_at, id > 3 AS big
        FROM source.sales WHERE id > :watermark ORDER BY id
    """
    assert fetch(url, query, "id", 0, tmp_path / "a.parquet") == (5, 5)
    rows = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert rows["note"] == [None, None, "late", "late", "late"]
    assert rows["number"] == [None, None, None, 4, 5]
    assert rows["day"] == [dt.date(2026, 1, day) for day in range(2, 7)]
    assert rows["sold_at"][:4] == [None] * 4
    assert rows["big"] == [False, False, False, True, True]
