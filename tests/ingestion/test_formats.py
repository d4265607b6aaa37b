"""The same rows in every supported way of writing them end as the same table."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import tasks.ingestion.streams as streams
from tasks.domain.contract import ColumnType
from tasks.domain.use_case import UseCase
from tasks.ingestion.columns import convert
from tests.ingestion.lake import Lake
from tests.samples import SALES, sales_use_case

ROWS = pd.DataFrame(
    {
        "store": [1, 1, 2, 2],
        "sku": [7, 7, 7, 9007199254740993],  # one more than a double can tell apart
        "day": ["2026-01-01", "2026-01-02", "2026-01-01", "2026-01-01"],
        "price": [1.5, 2.0, 0.25, 3.0],
        "promo": [True, False, True, False],
        "color": ["röt", None, "a, b", "NA"],
        "sales": [1.0, 2.0, 3.0, 4.5],
    }
)
CSV = ROWS.to_csv(index=False)
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS.to_dict("records")).replace("NaN", "null")


def parquet(**changes: object) -> bytes:
    buffer = io.BytesIO()
    ROWS.assign(**changes).to_parquet(buffer)
    return buffer.getvalue()


FILES = {
    "comma": CSV.encode(),
    "semicolon": ROWS.to_csv(index=False, sep=";").encode(),
    "tab": ROWS.to_csv(index=False, sep="\t").encode(),
    "bar": ROWS.to_csv(index=False, sep="|").encode(),
    "windows line ends": CSV.replace("\n", "\r\n").encode(),
    "old line ends": CSV.replace("\n", "\r").encode(),
    "no final newline": CSV.rstrip().encode(),
    "gzip": gzip.compress(CSV.encode()),
    "two gzip members": gzip.compress(CSV[:90].encode()) + gzip.compress(CSV[90:].encode()),
    "zstd": pa.compress(CSV.encode(), codec="zstd", asbytes=True),
    "utf-8 mark": codecs.BOM_UTF8 + CSV.encode(),
    "utf-16 little": codecs.BOM_UTF16_LE + CSV.encode("utf-16-le"),
    "utf-16 big": codecs.BOM_UTF16_BE + CSV.encode("utf-16-be"),
    "whole numbers with a point": CSV.replace("\n1,7", "\n1.0,7").encode(),
    "yes and no": CSV.replace("True", "yes").replace("False", "no").encode(),
    "columns in another order": ROWS[ROWS.columns[::-1]].to_csv(index=False).encode(),
    "Parquet": parquet(),
    "Parquet with dates and text": parquet(day=pd.to_datetime(ROWS["day"]), price=ROWS["price"].astype(str)),
    "JSON lines": LINES.encode(),
    "JSON lines with text": LINES.replace("1.5", '"1.5"').encode(),
    "JSON lines, blank line": LINES.replace("\n", "\n\n", 1).encode(),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_formats_agree(tmp_path: Path, content: bytes) -> None:
    lake = Lake(tmp_path, sales_use_case())
    done = lake.ingest(content)
    assert done.receipt.accepted == done.receipt.read == 4
    found = lake.rows().sort_values("sales", ignore_index=True)
    for column in ("store", "sku", "price", "promo", "sales"):
        assert found[column].tolist() == ROWS[column].tolist()
    assert found["color"].fillna("-").tolist() == ROWS["color"].fillna("-").tolist()
    assert found["day"].dt.strftime("%Y-%m-%d").tolist() == ROWS["day"].tolist()


def test_a_declared_encoding(tmp_path: Path) -> None:
    contract = SALES["contract"] | {"encoding": "latin-1"}
    lake = Lake(tmp_path, sales_use_case(contract=contract))
    lake.ingest(CSV.encode("latin-1"))
    assert "röt" in set(lake.rows()["color"])


def with_timestamp() -> UseCase:
    contract = SALES["contract"]
    columns = contract["columns"] | {"at": {"type": "timestamp"}}
    return sales_use_case(contract=contract | {"columns": columns})


@pytest.mark.parametrize("text", ["2026-01-01T10:00:00", "2026-01-01 11:00:00+01:00", "2026-01-01T10:00:00Z"])
def test_timestamps_are_utc(tmp_path: Path, text: str) -> None:
    lake = Lake(tmp_path, with_timestamp())
    lake.ingest(ROWS.assign(at=text).to_csv(index=False))
    assert set(lake.rows()["at"]) == {pd.Timestamp("2026-01-01T10:00:00Z")}


def test_blocks_end_at_records_whatever_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small blocks stand in for large files; the sizes are no part of any interface.
    monkeypatch.setattr(streams, "BLOCK_BYTES", 300)
    monkeypatch.setattr(streams, "READ_BYTES", 70)
    many = pd.concat([ROWS.iloc[[0, 1, 3]].assign(store=store, color=f'a "b"\nc,{store}') for store in range(3, 40)])
    bad = many.to_csv(index=False).replace("\n9,7,2026-01-01", "\n9,7,soon").replace("\n11,7,2026-01-01,1.5", "\n11,7")
    lake = Lake(tmp_path, sales_use_case())
    done = lake.ingest(bad)
    assert done.receipt.model_dump() == {"read": 111, "accepted": 109, "quarantined": 2, "duplicate": 0}
    assert lake.rows()["color"].iloc[0] == 'a "b"\nc,3'
    assert sorted(lake.quarantined(1)["line"]) == [20, 26]


@pytest.mark.parametrize(("column", "cell"), [("price", "NAN"), ("price", "-nan"), ("day", "0000-01-01")])
@pytest.mark.parametrize("neighbour", ["1", "cheap"], ids=["clean", "with a bad cell"])
def test_a_cell_means_the_same_whatever_stands_beside_it(
    tmp_path: Path, column: str, cell: str, neighbour: str
) -> None:
    columns = SALES["contract"]["columns"] | {"price": {"type": "number", "nullable": True}}
    use_case = sales_use_case(contract=SALES["contract"] | {"columns": columns, "max_bad_rows": 1.0})
    row = {"store": 1, "sku": 1, "day": "2026-01-01", "price": "1", "promo": True, "color": "red", "sales": 1} | {
        column: cell
    }
    rows = [
        row,
        row | {"sku": 2, "day": "2026-01-01", "price": neighbour},
        row | {"sku": 3, "day": "2026-01-01", "price": 2},
    ]
    lake = Lake(tmp_path, use_case)
    done = lake.ingest(pd.DataFrame(rows).to_csv(index=False))
    kept = lake.rows()
    assert done.receipt.accepted == len(kept) == 3 - (column == "day") - (neighbour == "cheap")
    assert kept.loc[kept["sku"] == 1, "price"].isna().tolist() == ([True] if column == "price" else [])


COLUMNS = {
    "whole numbers as floats": (
        "integer",
        pa.array([1e10, 4006381333931.0, 3.5, None]),
        [10**10, 4006381333931, None, None],
    ),
    "numbers as text": (
        "string",
        pa.array([1e10, 4006381333931.0, 3.5, None]),
        ["10000000000", "4006381333931", "3.5", None],
    ),
    "seconds since 1970": ("timestamp", pa.array([1704067200], pa.int64()), [None]),
    "days since 1970": ("date", pa.array([19723], pa.int32()), [None]),
    "times of day": (
        "date",
        pa.array([1704067200, 1704067201, None], pa.timestamp("s")),
        [date(2024, 1, 1), None, None],
    ),
    "midnight elsewhere": (
        "date",
        pa.array([1704063600, 1704067200], pa.timestamp("s", "Europe/Berlin")),
        [date(2024, 1, 1), None],
    ),
    "times as numbers": ("integer", pa.array([1704067200], pa.timestamp("s")), [None]),
    "bytes": ("string", pa.array([b"red", b"\xff", None]), ["red", "b'\\xff'", None]),
}


@pytest.mark.parametrize(("kind", "column", "values"), COLUMNS.values(), ids=COLUMNS)
def test_columns_of_other_types(kind: str, column: pa.Array, values: list[object]) -> None:
    """A value is what it says, whatever stands beside it, or is bad; never another value."""
    found, bad = convert(pa.chunked_array([column]), ColumnType(kind))
    assert found.to_pylist() == values
    unread = [value is None and there for value, there in zip(values, column.is_valid().to_pylist(), strict=True)]
    assert unread == (bad.tolist() if bad is not None else [False] * len(values))
