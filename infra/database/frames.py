"""Frames in and out of the database: queries as pandas frames, frames as rows, Arrow tables as COPY."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql
from sqlalchemy import BigInteger, Boolean, Connection, Double, Executable, Integer, Table, Text

from tasks.ports import PREDICTION

COPY_ROWS = 100_000
"""Rows of one CSV block: about 15 MB, so that memory stays small however large a batch is."""


def read_frame(
    connection: Connection, query: Executable, parameters: Mapping[str, object] | None = None
) -> pd.DataFrame:
    """The rows of a query, with the columns' own types also where there are no rows or only nulls.

    Text is `str`, `double precision` float64 (null is NaN), integers int64, or Int64 where there are nulls; booleans
    likewise; all else is left as the driver gives it.
    """
    result = connection.execute(query, parameters or {})
    cursor = result.cursor
    kinds = [column[1] for column in cursor.description] if cursor is not None else []
    columns = list(result.keys())
    rows = result.all()
    frame = pd.DataFrame([tuple(row) for row in rows], columns=columns, dtype=object)
    for name, kind in zip(columns, kinds, strict=True):
        frame[name] = _typed(frame[name], psycopg.adapters.types[kind].name if kind in _KNOWN else "")
    return frame


_KNOWN = frozenset(
    psycopg.adapters.types[name].oid for name in ("text", "name", "int4", "int8", "float8", "bool", "timestamptz")
)


def _typed(values: pd.Series[Any], kind: str) -> pd.Series[Any]:
    if kind in ("text", "name"):
        return values.astype("str")
    if kind == "float8":
        return values.astype("float64")
    if kind in ("int4", "int8"):
        return values.astype("Int64" if values.isna().any() else "int64")
    if kind == "bool":
        return values.astype("boolean" if values.isna().any() else "bool")
    if kind == "timestamptz":
        return pd.to_datetime(values, utc=True)
    return values


def to_rows(frame: pd.DataFrame, target: Table, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The named columns of a frame as rows for `target`: plain Python values, missing ones as None. A column that the
    frame lacks is null. Raises `ValueError` for a missing column that must not be null."""
    missing = [name for name in columns if name not in frame.columns and not target.c[name].nullable]
    if missing:
        raise ValueError(f"the rows for {target.name} lack {', '.join(missing)}")
    data: dict[str, list[Any]] = {}
    for name in columns:
        if name not in frame.columns:
            data[name] = [None] * len(frame)
            continue
        as_python = _PYTHON[type(target.c[name].type)]
        values, absent = frame[name].tolist(), frame[name].isna().tolist()
        data[name] = [None if gone else as_python(value) for value, gone in zip(values, absent, strict=True)]
    return [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]


_PYTHON: dict[type, Any] = {Text: str, Double: float, BigInteger: int, Integer: int, Boolean: bool}


def copy_predictions(connection: psycopg.Connection[Any], table: str, run_id: int, batch: int, rows: pa.Table) -> int:
    """Loads `PREDICTION` rows of one batch into a tenant's own partition of the predictions; returns how many."""
    columns = ("run_id", "batch", *PREDICTION)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    options = pyarrow.csv.WriteOptions(include_header=False, batch_size=COPY_ROWS)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, len(rows), COPY_ROWS):
            block = io.BytesIO()
            pyarrow.csv.write_csv(_block(rows.slice(start, COPY_ROWS), run_id, batch), block, options)
            copy.write(block.getbuffer())
    return len(rows)


def _block(rows: pa.Table, run_id: int, batch: int) -> pa.Table:
    columns = {
        "run_id": pa.repeat(pa.scalar(run_id, pa.int64()), len(rows)),
        "batch": pa.repeat(pa.scalar(batch, pa.int32()), len(rows)),
    }
    for name in PREDICTION:
        column = rows.column(name)
        columns[name] = _array_text(column) if name in ("probabilities", "baseline") else column
    return pa.table(columns)


def _array_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of numbers as PostgreSQL writes them, `{0.25,0.75}`."""
    if pa.types.is_null(column.type):
        return column
    parts = column.cast(pa.list_(pa.float64())).cast(pa.list_(pa.string()))
    return pc.binary_join_element_wise("{", pc.binary_join(parts, ","), "}", "")
