"""Queries as Arrow tables: by COPY, which takes a fraction of the time and memory of rows in Python."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql

DOUBLES = pa.list_(pa.float64())
UTC = pa.timestamp("us", "UTC")


def read_table(
    connection: psycopg.Connection[Any], query: sql.Composable, values: Sequence[object], schema: pa.Schema
) -> pa.Table:
    """The rows of a query, whose columns come in the order of the schema: text, numbers, booleans, points in time and
    lists of doubles."""
    copied = io.BytesIO()
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(query)
    with connection.cursor() as cursor, cursor.copy(statement, values) as blocks:
        for block in blocks:
            copied.write(block)
    if not copied.tell():
        return schema.empty_table()
    as_read = {field.name: pa.string() if field.type == DOUBLES else field.type for field in schema}
    found = pa.csv.read_csv(
        pa.py_buffer(copied.getbuffer()),
        pa.csv.ReadOptions(column_names=schema.names, block_size=copied.tell(), use_threads=False),
        pa.csv.ParseOptions(newlines_in_values=True),
        pa.csv.ConvertOptions(
            column_types=as_read,
            null_values=[""],  # NaN is a number
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    columns = [_doubles(found[field.name]) if field.type == DOUBLES else found[field.name] for field in schema]
    return pa.table(columns, schema=schema)


def _doubles(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists as PostgreSQL writes them, `{0.25,0.75}`."""
    inner = pc.utf8_trim(texts, "{}")
    parts = pc.split_pattern(inner, ",")
    none = pa.scalar([], parts.type)
    return pc.if_else(pc.equal(inner, ""), none, parts).cast(DOUBLES)
