"""Great Expectations as judge: which rows are bad, by which rule, under one report per upload."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.validation import ExpectationsValidator, rules
from tasks.domain.names import Purpose
from tasks.domain.use_case import UseCase
from tasks.ports import UNPARSED
from tests.ingestion.lake import make_upload
from tests.samples import SALES, sales_use_case


def strict() -> UseCase:
    columns = SALES["contract"]["columns"] | {
        "color": {"type": "string", "allowed": ["red", "blue"], "pattern": "^[rb]"},
        "price": {"type": "number", "min": 0, "max": 10},
    }
    return sales_use_case(contract=SALES["contract"] | {"columns": columns})


def frame(rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "store": 1,
            "sku": np.arange(1, rows + 1),
            "day": pd.Timestamp("2026-01-01"),
            "price": 1.0,
            "promo": True,
            "color": pd.Series(["red"] * rows, dtype="str"),
            "sales": 1.0,
            UNPARSED: pd.Series([None] * rows, dtype="str"),
        }
    )


def validator(folder: Path, seq: int = 1) -> ExpectationsValidator:
    return ExpectationsValidator(strict(), make_upload(seq), LakeFiles(Location(folder.as_uri())))


def test_every_rule_names_its_rows(tmp_path: Path) -> None:
    bad = frame(10)
    bad.loc[0, "price"] = 10.5
    bad.loc[1, "price"] = np.inf
    bad.loc[2, "sales"] = np.nan
    bad.loc[3, "color"] = "green"
    bad.loc[4, ["price", "sales"]] = np.nan
    bad.loc[4, UNPARSED] = "price is not a number\nsales is not a number"
    bad.index = pd.RangeIndex(100, 110)
    found = validator(tmp_path).check(bad)
    assert sorted(zip(found["row"], found["rule"], strict=True)) == [
        (100, "price is outside 0 to 10"),
        (101, "price is outside 0 to 10"),
        (102, "sales is missing"),
        (103, "color does not match ^[rb]"),
        (103, "color is not an allowed value"),
        (104, "price is not a number"),  # and not: missing
        (104, "sales is not a number"),
    ]


def test_rules_follow_the_purpose() -> None:
    assert {rule.column for rule in rules(strict(), Purpose.ACTUALS)} == {"store", "sku", "day", "sales", UNPARSED}
    assert "sales" not in {rule.column for rule in rules(strict(), Purpose.SCORING)}


def test_one_report_over_all_chunks(tmp_path: Path) -> None:
    checker = validator(tmp_path)
    for price in (1.0, 11.0, 12.0):
        checker.check(frame(1000).assign(price=price))
    page = LakeFiles(Location(tmp_path.as_uri())).read(checker.report()).decode()
    assert "3,000 rows" in page
    assert "2000" in page.replace(",", "")  # rows outside the range, over all chunks
    assert "11.0" in page


def test_uploads_checked_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    def bad_rows(seq: int) -> list[int]:
        checker = validator(tmp_path, seq)
        chunk = frame(50)
        chunk.loc[seq, "price"] = -1.0
        return [row for _ in range(3) for row in checker.check(chunk)["row"]]

    with ThreadPoolExecutor(max_workers=2) as pool:
        found = list(pool.map(bad_rows, range(1, 9)))
    assert found == [[seq] * 3 for seq in range(1, 9)]


def test_a_cell_is_text_on_the_page(tmp_path: Path) -> None:
    bad = frame(2)
    bad.loc[0, "color"] = "<script>alert(1)</script>"
    checked = validator(tmp_path)
    checked.check(bad)
    page = (tmp_path / checked.report()).read_text()
    assert "<script>alert" not in page
    assert "alert(1)" in page
