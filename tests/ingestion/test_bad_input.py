"""Files that are not what they should be: a clear permanent error, nothing merged, bounded time and memory."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.domain.errors import ContractBroken, TooManyBadRows, UnreadableUpload
from tests.ingestion.lake import Lake
from tests.samples import SALES, sales_use_case

HEADER = "store,sku,day,price,promo,color,sales\n"
GOOD = HEADER + "".join(f"1,{sku},2026-01-0{day},2.5,true,red,{day}\n" for sku in range(1, 5) for day in range(1, 10))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, sales_use_case())


def parquet(rows: int = 1000) -> bytes:
    frame = pd.DataFrame(
        {
            "store": range(1, rows + 1),
            "sku": 1,
            "day": pd.Timestamp("2026-01-01"),
            "price": 1.0,
            "promo": True,
        }
    ).assign(color="red", sales=1.0)
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


UNREADABLE = {
    "empty file": (b"", "empty"),
    "only blanks": (b"\n \n", "empty"),
    "header only": (HEADER.encode(), "no rows"),
    "wrong delimiter": (GOOD.replace(",", "^").encode(), "cannot be split"),
    "truncated gzip": (gzip.compress(GOOD.encode())[:-20], "truncated"),
    "gzip of noise": (b"\x1f\x8b" + bytes(range(256)), "truncated or damaged"),
    "truncated zstd": (pa.compress(GOOD.encode() * 99, codec="zstd", asbytes=True)[:-30], "truncated"),
    "truncated Parquet": (parquet()[:-500], "truncated"),
    "Parquet cut in the middle": (parquet()[:100] + parquet()[-50:], "truncated or damaged"),
    "binary named .csv": (bytes(range(256)) * 100, "binary"),
    "spreadsheet": (b"PK\x03\x04" + b"x" * 100, "spreadsheet"),
    "undeclared encoding": (GOOD.replace("red", "r\xf6t").encode("latin-1"), "not utf-8"),
    "quotes that do not pair": (GOOD.replace("red", '"red', 1).encode(), "pair up"),
    "JSON array": (b'[{"store": 1}]', "JSON array"),
    "broken JSON": (b'{"store": 1\n', "JSON object"),
}


@pytest.mark.parametrize(("content", "says"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_files(lake: Lake, content: bytes, says: str) -> None:
    with pytest.raises(UnreadableUpload, match=says) as caught:
        lake.ingest(content)
    assert "sales.csv" in str(caught.value)
    assert lake.table.version() is None


def without(column: str) -> str:
    return pd.read_csv(io.StringIO(GOOD)).drop(columns=column).to_csv(index=False)


BROKEN = {
    "missing column": (without("price"), "missing column for history: price"),
    "missing target": (without("sales"), "missing column for history: sales"),
    "missing columns in JSON": ('{"store": 1, "sku": 2}\n', "missing columns for history: day, price"),
    "extra column": (GOOD.replace("color", "colour,color").replace("red", "x,red"), "unknown column: colour"),
    "duplicate header": (GOOD.replace("color", "price"), "twice: price"),
    "10,000 columns": (
        ",".join(f"c{n}" for n in range(10_000)) + "\n" + "1," * 9_999 + "1\n",
        "10,000 columns",
    ),
}


@pytest.mark.parametrize(("content", "says"), BROKEN.values(), ids=BROKEN)
def test_columns_that_break_the_contract(lake: Lake, content: str, says: str) -> None:
    with pytest.raises(ContractBroken, match=says) as caught:
        lake.ingest(content)
    assert len(str(caught.value)) < 1000
    assert lake.table.version() is None


def test_extra_columns_can_be_ignored(tmp_path: Path) -> None:
    contract = SALES["contract"] | {"extra_columns": "ignore"}
    lake = Lake(tmp_path, sales_use_case(contract=contract))
    done = lake.ingest(GOOD.replace("color", "colour,color").replace("red", "x,red"))
    assert done.receipt.accepted == 36


@pytest.mark.parametrize("compressed", [False, True])
def test_a_line_of_200_megabytes(lake: Lake, compressed: bool) -> None:
    content = HEADER.encode() + b"1" * 200_000_000
    with pytest.raises(UnreadableUpload, match="line is longer than 64 MiB"):
        lake.ingest(gzip.compress(content, 1) if compressed else content)


def bomb(kind: str) -> bytes:
    """A small file that would fill a disk: rows of one value, each a few bytes once it is read."""
    line = b"1,1,2026-01-01,1.0,true,red,1.0\n" * 10_000
    if kind == "gzip":  # members may follow one another
        return gzip.compress(HEADER.encode()) + gzip.compress(line) * 1000
    if kind == "zstd":
        packed: bytes = pa.compress(HEADER.encode() + line * 1000, codec="zstd", asbytes=True)
        return packed
    rows, buffer = 10_000_000, io.BytesIO()
    values = {"store": 1, "sku": 1, "price": 1.0, "promo": True, "color": "red", "sales": 1.0}
    columns = {name: pa.repeat(pa.scalar(value), rows) for name, value in values.items()}
    pq.write_table(pa.table({**columns, "day": pa.repeat(pa.scalar("2026-01-01"), rows)}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["gzip", "zstd", "parquet"])
def test_a_file_that_grows_beyond_all_measure(lake: Lake, kind: str) -> None:
    content = bomb(kind)
    assert len(content) < 1_000_000
    with pytest.raises(UnreadableUpload, match="packed more than 200 times"):
        lake.ingest(content)
    assert lake.table.version() is None


CELLS = {
    "text in a number column": ("2.5,true,red,1\n", "dear,true,red,1\n", "price is not a number"),
    "infinite": ("2.5,true,red,1\n", "inf,true,red,1\n", "price is outside 0 to inf"),
    "infinite target": ("red,1\n", "red,-inf\n", "sales is not finite"),
    "below the minimum": ("2.5,true,red,1\n", "-1,true,red,1\n", "price is outside 0 to inf"),
    "impossible date": ("2026-01-01", "2026-02-30", "day is not a date"),
    "fraction in an integer column": ("1,1,2026-01-01", "1.5,1,2026-01-01", "store is not an integer"),
    "integer beyond 64 bits": ("1,1,2026-01-01", f"{2**64},1,2026-01-01", "store is not an integer"),
    "missing value": ("2.5,true,red,1\n", ",true,red,1\n", "price is missing"),
    "no boolean": ("true,red,1\n", "perhaps,red,1\n", "promo is not true or false"),
    "too few fields": (
        "1,1,2026-01-01,2.5,true,red,1\n",
        "1,1,2026-01-01\n",
        "record has 3 fields, the header has 7",
    ),
}


@pytest.mark.parametrize(("good", "bad", "rule"), CELLS.values(), ids=CELLS)
def test_a_bad_row_is_quarantined_with_its_text_and_the_rest_accepted(
    lake: Lake, good: str, bad: str, rule: str
) -> None:
    done = lake.ingest(GOOD.replace(good, bad, 1))
    assert done.receipt.model_dump() == {"read": 36, "accepted": 35, "quarantined": 1, "duplicate": 0}
    kept = lake.quarantined(1)
    assert any(rule in broken for broken in done.rules)
    assert kept["line"].tolist() == [2]
    assert rule in kept["rule"][0]
    cell = bad.split(",")[0] if not bad.startswith("1,1") else bad.rstrip()
    assert cell in kept["row"][0]
    assert len(lake.rows()) == 35


def test_more_bad_rows_than_tolerated_reject_the_upload_and_keep_the_old_version(lake: Lake) -> None:
    first = lake.ingest(GOOD)
    bad = GOOD.replace("2.5", "cheap", 10)
    with pytest.raises(TooManyBadRows, match=r"10 of 36 rows are bad.*10 × price is not a number"):
        lake.ingest(bad, seq=2)
    assert lake.table.version() == first.dataset_version
    assert len(lake.quarantined(2)) == 10
    assert any(path.startswith("reports/sales/") for path in lake.files.list("reports"))


def test_a_target_that_is_empty_everywhere_is_refused(lake: Lake) -> None:
    frame = pd.read_csv(io.StringIO(GOOD)).assign(sales=None)
    with pytest.raises(TooManyBadRows, match="target is empty in all 36 rows"):
        lake.ingest(frame.to_csv(index=False))
    assert lake.table.version() is None


def test_duplicate_row_keys_the_last_one_wins(lake: Lake) -> None:
    done = lake.ingest(GOOD + "1,1,2026-01-01,9.5,false,blue,77\n1,1,2026-01-01,9.5,false,blue,78\n")
    assert done.receipt.model_dump() == {"read": 38, "accepted": 36, "quarantined": 0, "duplicate": 2}
    assert lake.rows()["sales"].max() == 78
    kept = lake.quarantined(1)
    assert sorted(kept["line"]) == [2, 38]
    assert set(kept["outcome"]) == {"duplicate"}
    assert json.loads(kept["row"][0])["color"] in {"red", "blue"}


@pytest.mark.parametrize("text", ["x" * 2500, "\U0001f600" * 250], ids=["letters", "encoded"])
def test_a_partition_whose_name_no_index_takes_is_quarantined(tmp_path: Path, text: str) -> None:
    """It kept the whole use case from being trained: PostgreSQL refused the row of that partition."""
    columns = SALES["contract"]["columns"] | {"color": {"type": "string"}}
    use_case = sales_use_case(contract=SALES["contract"] | {"columns": columns}, partition_by=["store", "color"])
    lake = Lake(tmp_path, use_case)
    done = lake.ingest(GOOD + f"1,9,2026-01-01,2.5,true,{text},1\n" + f"1,9,2026-01-02,2.5,true,{text[:200]},1\n")
    assert done.rules == {"the partition's name is longer than 2,500 bytes": 1}
    assert (done.receipt.quarantined, done.receipt.accepted, done.quarantined_partitions) == (1, 37, ())
    assert lake.table.partitions(0)["partition"].str.len().max() <= 2500


def test_half_a_character_is_quarantined(lake: Lake) -> None:
    """As whoever cuts texts by their length in UTF-16 writes them: the emoji's first half."""
    row = {"store": 1, "sku": 1, "price": 1, "promo": True, "color": "red", "sales": 1}
    rows = [row | {"day": f"2026-01-{day:02}"} for day in range(1, 12)]
    text = "\n".join(json.dumps(each) for each in [*rows, row | {"day": "2026-02-01", "color": "\ud83d"}])
    done = lake.ingest(text)
    assert done.rules == {"record is not a JSON object": 1}
    assert (done.receipt.accepted, done.receipt.quarantined) == (11, 1)
    assert lake.quarantined(1)["line"].tolist() == [12]


def test_allowed_codes_need_no_quotes(tmp_path: Path) -> None:
    columns = SALES["contract"]["columns"] | {"color": {"type": "string", "allowed": [1, 2, "3"]}}
    lake = Lake(tmp_path, sales_use_case(contract=SALES["contract"] | {"columns": columns}))
    done = lake.ingest(HEADER + "".join(f"1,{sku},2026-01-01,2.5,true,{1 + sku % 3},1\n" for sku in range(1, 30)))
    assert done.receipt.accepted == 29
