"""Many rows as Arrow streams or Parquet files, in and out.

Nothing in a body is believed. Offsets may lead into memory that holds another tenant's rows, so every batch is
validated in full. A few bytes may stand for gigabytes: compressed ones, which the process's memory limit stops, one
table at a time; and one text that a thousand rows refer to, which is counted before it is copied.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.domain.errors import UnreadableUpload

ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
CONTENT_TYPES = (ARROW, PARQUET)
MAX_COLUMNS = 2_000
MAX_TEXT_BYTES = 64_000_000
"""Of the texts of one body, each counted as often as a row has it."""
SOME_OTHERS = 20
"""Of the columns that no contract knows: enough to name them."""

ROWS_AT_ONCE = 200

_AT_MOST = f"at most {MAX_TEXT_BYTES:,}"
_one_at_a_time = threading.Lock()


def rows_of(body: bytes, kind: str, limit: int, known: Collection[str]) -> list[dict[str, Any]]:
    """The rows of a table, one more than `limit` at most, with the columns that are `known`, and some of any others.
    Raises `UnreadableUpload`."""
    try:
        with _one_at_a_time:
            table = _READ[kind](body, limit + 1).slice(0, limit + 1)
        if (size := sum(map(_text_bytes, table.columns))) > MAX_TEXT_BYTES:
            raise UnreadableUpload(f"the texts of the table have {size:,} bytes", expected=_AT_MOST)
        others = sorted(name for name in table.column_names if name not in known)
        table = table.drop_columns(others[SOME_OTHERS:])
        # Arrow keeps the interpreter until it is done, so it is asked for a little at a time.
        return [row for piece in table.to_batches(max_chunksize=ROWS_AT_ONCE) for row in piece.to_pylist()]
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:  # a zone that nobody knows
        raise UnreadableUpload("the body is no table", expected=kind, found=str(error)[:200]) from None


def _arrow(body: bytes, limit: int) -> pa.Table:
    batches, rows = [], 0
    with pa.ipc.open_stream(body) as reader:
        _check_types(reader.schema)
        for batch in reader:
            batch.validate(full=True)
            batches.append(batch)
            rows += batch.num_rows
            if rows > limit:
                break
        return pa.Table.from_batches(batches, reader.schema)


def _parquet(body: bytes, limit: int) -> pa.Table:
    with pq.ParquetFile(io.BytesIO(body)) as told:
        _check_types(told.schema_arrow)
        texts = [field.name for field in told.schema_arrow if _is_text(field.type)]
    with pq.ParquetFile(io.BytesIO(body), read_dictionary=texts) as file:  # a text that comes often is there once
        # What the footer says is not believed: rows are read until there are too many.
        batches, rows = [], 0
        for batch in file.iter_batches(min(limit, 10_000)):
            batch.validate(full=True)
            batches.append(batch)
            rows += batch.num_rows
            if rows > limit:
                break
        return pa.Table.from_batches(batches, file.schema_arrow)


def _check_types(schema: pa.Schema) -> None:
    if len(schema) > MAX_COLUMNS:
        raise UnreadableUpload(f"the table has {len(schema):,} columns", expected=f"at most {MAX_COLUMNS:,}")
    if repeated := [name for name, times in Counter(schema.names).items() if times > 1]:  # as in files
        raise UnreadableUpload(f"the table has two columns {repeated[0][:100]!r}", hint="which one is meant?")
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        plain = (
            pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind) or _is_text(kind)
        )  # of these, none can stand for more than it takes, but for texts
        if not plain:
            raise UnreadableUpload(
                f"column {field.name[:100]!r} is of a type that no contract has",
                expected="numbers, booleans, dates, times, strings, or dictionaries of strings",
                found=str(field.type)[:200],
                hint="polars: write with compat_level=CompatLevel.oldest()" if "view" in str(kind) else "",
            )


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)  # type: ignore[no-any-return]


def _text_bytes(column: pa.ChunkedArray) -> int:
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type) and _is_text(chunk.type.value_type):
            total += pc.sum(pc.binary_length(chunk.dictionary).cast(pa.int64()).take(chunk.indices)).as_py() or 0
        elif _is_text(chunk.type):
            total += pc.sum(pc.binary_length(chunk).cast(pa.int64())).as_py() or 0
    return total


_READ: dict[str, Callable[[bytes, int], pa.Table]] = {ARROW: _arrow, PARQUET: _parquet}


def written(answers: list[dict[str, Any]], kind: str) -> bytes:
    """The answers as a table, of the columns that any of them has: probabilities and contributions are maps."""
    types = {name: each for name, each in _ANSWER_TYPES.items() if any(name in answer for answer in answers)}
    explained: dict[str, Any] = next((said for answer in answers if (said := answer.get("contributions"))), {})
    if any(isinstance(value, dict) for value in explained.values()):  # one per class
        types["contributions"] = pa.map_(pa.string(), _BY_NAME)
    table = pa.table(
        {name: pa.array([_entries(answer.get(name)) for answer in answers], each) for name, each in types.items()}
    )
    sink = io.BytesIO()
    if kind == PARQUET:
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return sink.getvalue()


def _entries(value: Any) -> Any:
    """A map as Arrow takes it: a list of its entries."""
    return [(name, _entries(each)) for name, each in value.items()] if isinstance(value, dict) else value


_BY_NAME = pa.map_(pa.string(), pa.float64())
_ANSWER_TYPES = {
    "partition": pa.string(),
    "prediction": pa.float64(),
    "label": pa.string(),
    "probabilities": _BY_NAME,
    "answer": pa.string(),
    "fallback": pa.bool_(),
    "model_run": pa.int64(),
    "contributions": _BY_NAME,
    "source": pa.string(),
    "scored_at": pa.string(),
}
"""Whatever the rows: what all of them lack has its type nevertheless."""
