"""No cell of a CSV file is a formula, and every other cell is as it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.leaving.spreadsheets import guarded, write_csv

DANGEROUS = ("=", "+", "-", "@", "\t", "\r")


def column(values: list[object], kind: pa.DataType) -> list[object]:
    rows: list[object] = guarded(pa.table({"x": pa.array(values, kind)}))["x"].to_pylist()
    return rows


@pytest.mark.parametrize("formula", ['=HYPERLINK("http://evil")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=", "-"])
def test_a_formula_becomes_a_text(formula: str) -> None:
    assert column([formula, f"no {formula}"], pa.string()) == [f"'{formula}", f"no {formula}"]


@given(st.lists(st.text(max_size=20) | st.none()))
def test_only_what_begins_like_a_formula_is_changed(values: list[object]) -> None:
    expected = [f"'{each}" if isinstance(each, str) and each.startswith(DANGEROUS) else each for each in values]
    assert column(values, pa.string()) == expected
    assert column(values, pa.large_string()) == expected


def test_numbers_stay_numbers_and_lists_are_json() -> None:
    assert column([-1.5, None], pa.float64()) == [-1.5, None]
    lists = column([[1.0, -2.0], None, []], pa.list_(pa.float64()))
    assert [each if each is None else json.loads(str(each)) for each in lists] == [[1.0, -2.0], None, []]
    assert column([["=1"]], pa.list_(pa.string())) == ['["=1"]']  # it begins with a bracket


def test_a_file_is_written_beside_the_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["=1", 'a "b",\nc', None], "number": [-1, 2, None]}), path, row_group_size=1)
    with write_csv(path).open(newline="") as file:
        assert list(csv.reader(file)) == [["text", "number"], ["'=1", "-1"], ['a "b",\nc', "2"], ["", ""]]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.csv", "rows.parquet"]


def test_a_file_without_rows_has_its_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "lists": pa.array([], pa.list_(pa.int64()))}), path)
    assert write_csv(path).read_text().split() == ['"text","lists"']
