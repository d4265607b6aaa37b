"""What a file holds is counted by partition, as its table will have it."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from tasks.domain.errors import ContractBroken
from tasks.domain.use_case import UseCase
from tasks.ingestion.counting import count_partitions
from tests.ingestion.lake import PSEUDONYMS, Lake, make_upload
from tests.people import personal_use_case, rows
from tests.samples import sales_use_case

SALES = pd.DataFrame(
    {
        "store": [1, 1, 2, 1], "sku": [7, 7, 7, 8], "day": ["2026-01-01", "2026-01-02", "2026-01-01", "2026-01-01"],
        "price": 1.5, "promo": True, "color": "red", "sales": [1.0, 2.0, 3.0, 4.5],
    }
)  # fmt: skip


def counted(folder: Path, use_case: UseCase, content: bytes) -> dict[str, int]:
    path = folder / "file"
    path.write_bytes(content)
    counts = count_partitions(path, use_case, make_upload(1), PSEUDONYMS)
    assert list(counts.index) == sorted(counts.index)
    return {str(name): int(number) for name, number in counts.items()}


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("use_case", "frame"), [(sales_use_case(), SALES), (personal_use_case(), rows())], ids=["plain", "personal"]
)
def test_counts_are_those_of_the_table(tmp_path: Path, use_case: UseCase, frame: pd.DataFrame) -> None:
    content = frame.to_csv(index=False).encode()
    lake = Lake(tmp_path, use_case)
    lake.ingest(content)
    table = lake.table.partitions(lake.table.version() or 0)
    expected = dict(zip(table["partition"], table["rows"], strict=True))
    assert counted(tmp_path, use_case, content) == expected
    assert counted(tmp_path, use_case, parquet(frame)) == expected


def test_rows_without_a_key_belong_to_no_partition(tmp_path: Path) -> None:
    holes = SALES.astype({"store": "object"})
    holes.loc[0, "store"] = "?"
    assert counted(tmp_path, sales_use_case(), holes.to_csv(index=False).encode()) == {
        "store=1,sku=7": 1, "store=1,sku=8": 1, "store=2,sku=7": 1,
    }  # fmt: skip


def test_another_files_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractBroken):
        counted(tmp_path, sales_use_case(), b"what,is,this\n1,2,3\n")
