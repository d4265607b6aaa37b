"""Personal columns: rules are checked on what the file says, and of that nothing raw is kept."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tasks.domain.errors import ContractBroken, UnreadableUpload
from tasks.domain.names import Purpose
from tasks.ingestion.quarantine import MASKED
from tests.ingestion.lake import PSEUDONYMS, Lake
from tests.people import personal_use_case, rows
from tests.samples import SALES, sales_use_case


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, personal_use_case())


def csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False))


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def json_lines(frame: pd.DataFrame) -> str:
    return str(frame.to_json(orient="records", lines=True))


FORMATS = [csv, json_lines, parquet]


@pytest.mark.parametrize("write", FORMATS, ids=lambda each: each.__name__)
def test_the_table_has_pseudonyms_and_no_dropped_column(lake: Lake, write: Any) -> None:
    done = lake.ingest(write(rows().assign(city=["rome", None] * 5)))
    assert done.receipt.accepted == 10
    table = lake.rows()
    assert {"born", "email"}.isdisjoint(table.columns)
    assert set(table["customer"]) == {PSEUDONYMS.of("anna"), PSEUDONYMS.of("ben")}
    assert set(table["_partition"]) == {f"customer={PSEUDONYMS.of(name)}" for name in ("anna", "ben")}
    assert table["city"].dropna().unique().tolist() == [PSEUDONYMS.of("rome")]
    assert table["city"].isna().sum() == 5
    [delta] = [field for field in lake.table.snapshot().delta.schema().fields if field.name == "customer"]
    assert delta.type.type == "string"


def test_files_of_all_purposes_meet_in_the_same_rows(lake: Lake) -> None:
    lake.ingest(csv(rows()))
    scoring = rows(("anna", "cleo"), 6).drop(columns="sales").query("day == '2026-01-06'")
    lake.ingest(json_lines(scoring), 2, Purpose.SCORING)
    actuals = pd.DataFrame({"customer": ["anna", "cleo", "dora"], "day": "2026-01-06", "sales": 9.0})
    done = lake.ingest(csv(actuals), 3, Purpose.ACTUALS)
    assert (done.receipt.accepted, done.receipt.quarantined) == (2, 1)
    table = lake.rows()
    scored = table[table["day"] == pd.Timestamp("2026-01-06")]
    assert scored.set_index("customer")["sales"].to_dict() == {PSEUDONYMS.of("anna"): 9.0, PSEUDONYMS.of("cleo"): 9.0}
    [stranger] = lake.quarantined(3, Purpose.ACTUALS)["row"]
    assert json.loads(stranger) == {"customer": MASKED, "day": "2026-01-06T00:00:00", "sales": 9.0}


def test_a_column_that_is_dropped_must_be_there(lake: Lake) -> None:
    with pytest.raises(ContractBroken, match="missing column for history: email"):
        lake.ingest(csv(rows().drop(columns="email")))


BAD = {
    "a pattern": ({"customer": "SECRET9"}, "customer does not match"),
    "a pattern of a dropped column": ({"email": "SECRET9"}, "email does not match"),
    "an allowed value": ({"city": "SECRET9"}, "city is not an allowed value"),
    "an unreadable date": ({"born": "SECRET9"}, "born is not a date"),
    "another column": ({"price": "-1", "email": "SECRET9@"}, "price is outside"),
}


@pytest.mark.parametrize("write", FORMATS, ids=lambda each: each.__name__)
@pytest.mark.parametrize(("cells", "rule"), BAD.values(), ids=BAD)
def test_rules_judge_the_raw_value_and_quarantine_shows_the_rule_without_it(
    lake: Lake, write: Any, cells: dict[str, str], rule: str
) -> None:
    frame = rows().astype({"price": "str"}) if write is not parquet else rows()
    for name, value in cells.items():
        frame.loc[3, name] = float(value) if name == "price" and write is parquet else value
    done = lake.ingest(write(frame))
    assert (done.receipt.accepted, done.receipt.quarantined) == (9, 1)
    [kept] = lake.quarantined(1).to_dict("records")
    assert rule in kept["rule"]
    assert kept["line"] == (5 if write is csv else 4)
    shown = json.loads(kept["row"])
    assert [name for name, value in shown.items() if value == MASKED] == ["customer", "city", "born", "email"]
    assert shown["day"] == "2026-01-04"
    assert_nowhere(lake, "SECRET9", "who@there", "anna")
    # The partition that a bad row names is known by its pseudonym too.
    name = cells.get("customer", "anna")
    assert done.quarantined_partitions == (f"customer={PSEUDONYMS.of(name)}",)


def test_duplicates_and_records_that_are_no_rows_are_masked(lake: Lake) -> None:
    text = csv(rows()) + "anna,2026-01-05,rome,1990-05-05,who@there,9.5,7\nSECRET9,2026-01-05,rome\n"
    done = lake.ingest(text)
    assert (done.receipt.duplicate, done.receipt.quarantined) == (1, 1)
    kept = {row["outcome"]: row for row in lake.quarantined(1).to_dict("records")}
    assert json.loads(kept["duplicate"]["row"])["customer"] == MASKED
    assert kept["duplicate"]["line"] == 6
    assert json.loads(kept["quarantined"]["row"]) == {"text": MASKED}
    assert_nowhere(lake, "SECRET9", "who@there", "anna")


def assert_nowhere(lake: Lake, *values: str) -> None:
    """None of the values is in any file of the lake or of the scratch folder, as it is or compressed."""
    for path in lake.folder.rglob("*"):
        if path.is_file() and not path.name.startswith("upload-"):  # what the tenant handed in
            text = path.read_bytes()
            if path.suffix == ".parquet":
                text += repr(pq.read_table(path).to_pylist()).encode()
            for value in values:
                assert value.encode() not in text, path


HEADERLESS = csv(rows().assign(customer="SECRET9", email="SECRET9@there")).partition("\n")[2]

UNREADABLE = {
    "without a header": HEADERLESS,
    "without a header, in one column": HEADERLESS.replace(",", "^"),
    "a header that repeats a value": csv(rows()).replace("price,sales", "price,SECRET9,SECRET9"),
    "an unknown column": csv(rows().assign(SECRET9=1)),
    "an unknown key": json_lines(rows().assign(SECRET9=1)),
    "a key that is a value": json.dumps({"SECRET9": 1}),
    "no JSON object": '{"SECRET9"}',
    "a Parquet file that is cut off": parquet(rows(("SECRET9",)))[:-300],
    "text that is no UTF-8": parquet(rows(("SECRET9",))).replace(b"SECRET9", b"SECRET\xff"),
    "quotes that do not pair": csv(rows()) + '"SECRET9',
    "gzip that is cut off": gzip.compress(csv(rows(("SECRET9",))).encode())[:-9],
    "a line without end": csv(rows()) + "SECRET9" * 10_000_000,
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_is_refused_is_not_quoted(lake: Lake, content: str | bytes) -> None:
    with pytest.raises((UnreadableUpload, ContractBroken)) as caught:
        lake.ingest(content)
    assert "SECRET" not in str(caught.value)
    assert caught.value.message
    assert_nowhere(lake, "SECRET9")


def test_a_use_case_without_personal_columns_is_still_told_what_was_found(tmp_path: Path) -> None:
    plain = Lake(tmp_path, sales_use_case(contract=SALES["contract"]))
    with pytest.raises(ContractBroken, match="unknown column: colour"):
        plain.ingest("colour,store,sku,day,price,promo,color,sales\n1,1,1,2026-01-01,1,true,red,1\n")


def test_the_report_counts_bad_personal_cells_and_shows_none(lake: Lake) -> None:
    frame = rows()
    frame.loc[[2, 3], ["customer", "price"]] = ["SECRET9", -77.25]
    done = lake.ingest(csv(frame))
    page = lake.files.read(done.report).decode()
    assert "-77.25" in page, "examples of other columns are shown"
    assert "SECRET9" not in page
    assert "2 unexpected values found" in page
