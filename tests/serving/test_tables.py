"""Tables from outside: what fits is read, what is crafted is refused before it hurts."""

from __future__ import annotations

import datetime as dt
import io
import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.serving.tables import ARROW, MAX_COLUMNS, PARQUET, SOME_OTHERS, rows_of, written
from tasks.domain.errors import UnreadableUpload


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_plain_types_are_read() -> None:
    rows: list[dict[str, Any]] = [
        {"n": 1, "x": 1.5, "yes": True, "text": "é", "day": dt.date(2026, 1, 2), "price": Decimal("1.20"), "no": None},
        {"n": 2, "x": None, "yes": False, "text": "", "day": None, "price": None, "no": None},
    ]
    table = pa.Table.from_pylist(rows)
    coded = table.set_column(3, "text", table["text"].dictionary_encode())
    for body, kind in (
        (stream(table), ARROW), (stream(coded), ARROW), (stream(table, "zstd"), ARROW), (parquet(table), PARQUET),
        (parquet(coded), PARQUET),
    ):  # fmt: skip
        assert rows_of(body, kind, 10, rows[0]) == rows


def test_no_more_rows_are_read_than_may_come() -> None:
    table = pa.table({"n": range(100_000)})
    assert {len(rows_of(stream(table), ARROW, 1_000, "n")), len(rows_of(parquet(table), PARQUET, 1_000, "n"))} == {
        1_001
    }


def test_of_a_wide_table_what_is_known_becomes_rows() -> None:
    wide = pa.table({f"c{number:04}": [0] * 3 for number in range(MAX_COLUMNS - 1)} | {"store": [1, 2, 3]})
    for body, kind in ((stream(wide), ARROW), (parquet(wide), PARQUET)):
        rows = rows_of(body, kind, 10, {"store", "price"})
        assert [row["store"] for row in rows] == [1, 2, 3]
        assert {*rows[0]} == {"store", *(f"c{number:04}" for number in range(SOME_OTHERS))}  # to be told of


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_a_column_that_is_there_twice_is_refused_as_in_files(kind: str) -> None:
    table = pa.table([[1], [2]], ["store", "store"])
    with pytest.raises(UnreadableUpload, match="two columns 'store'"):
        rows_of((stream if kind == ARROW else parquet)(table), kind, 10, {"store"})


def test_offsets_do_not_lead_into_memory_of_others() -> None:
    body = stream(pa.table({"text": ["mine", "mine too"]}))
    offsets = struct.pack("<3i", 0, 4, 12)
    assert body.count(offsets) == 1
    with pytest.raises(UnreadableUpload, match="no table"):
        rows_of(body.replace(offsets, struct.pack("<3i", 0, 4, 4_000)), ARROW, 10, ())


def test_an_index_names_an_entry_of_its_dictionary() -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a"]), safe=False)
    with pytest.raises(UnreadableUpload, match="no table"):
        rows_of(stream(pa.table({"text": coded})), ARROW, 10, ())


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_one_text_is_not_copied_for_a_thousand_rows(kind: str) -> None:
    long = pa.array(["x" * 1_000_000])
    coded = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int32()), long)
    body = (stream if kind == ARROW else parquet)(pa.table({"text": coded}))
    assert len(body) < 3_000_000
    with pytest.raises(UnreadableUpload, match="1,000,000,000 bytes"):
        rows_of(body, kind, 1_000, ())


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1] * 3]),
        pa.array([{"a": 1}]),
        pa.RunEndEncodedArray.from_arrays([1], ["x"]),
        pa.array(["x"], pa.string_view()),
        pa.array([b"x"]),
        pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([b"x"])),
    ],
    ids=["list", "struct", "run-end", "view", "bytes", "dictionary of bytes"],
)
def test_types_that_no_contract_has_are_named(column: pa.Array) -> None:
    with pytest.raises(UnreadableUpload, match="column 'odd' is of a type"):
        rows_of(stream(pa.table({"odd": column})), ARROW, 10, ())


def test_a_buffer_that_claims_to_be_huge_is_refused() -> None:
    body = stream(pa.table({"n": [0] * 1_000_000}), "zstd")
    claimed = struct.pack("<q", 8_000_000)
    assert body.count(claimed) >= 1
    with pytest.raises(UnreadableUpload, match="no table"):
        rows_of(body.replace(claimed, struct.pack("<q", 10**13)), ARROW, 1_000, ())


def read(body: bytes, kind: str) -> pa.Table:
    return pa.ipc.open_stream(body).read_all() if kind == ARROW else pq.read_table(io.BytesIO(body))


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_answers_of_every_kind_become_tables(kind: str) -> None:
    said = {"answer": "own", "fallback": False, "model_run": 1, "source": "online"}
    number = {"partition": "a", "prediction": 1.5, **said}
    classes = {"partition": "a", "label": "yes", "probabilities": {"no": 0.25, "yes": 0.75}, **said}
    per_class = {"x": {"a": 1.0, "b": 2.0}, "bias": {"a": 0.0, "b": 0.5}}
    for name, value, shown in (
        ("probabilities", {"no": 0.25, "yes": 0.75}, [("no", 0.25), ("yes", 0.75)]),
        ("contributions", {"x": 1.0, "bias": 2.0}, [("x", 1.0), ("bias", 2.0)]),
        ("contributions", per_class, [("x", [("a", 1.0), ("b", 2.0)]), ("bias", [("a", 0.0), ("b", 0.5)])]),
    ):
        told: dict[str, Any] = {**classes, name: value}
        found = read(written([{**classes, name: None}, told], kind), kind)[name].to_pylist()
        assert found == [None, shown]
    # A stored answer after a computed one keeps when it was made, and a column has its type even where it is empty.
    stored = {**number, "prediction": None, "source": "precomputed", "scored_at": "2026-11-01T00:00:00+00:00"}
    table = read(written([{**number, "prediction": None}, stored], kind), kind)
    assert table["scored_at"].to_pylist() == [None, stored["scored_at"]]
    assert table.schema.field("prediction").type == pa.float64()
