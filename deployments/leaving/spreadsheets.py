"""CSV files that are safe to open in a spreadsheet."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

FORMULA = r"^[=+\-@\t\r]"
"""How a cell begins that a spreadsheet would take for a formula."""


def guarded(rows: pa.Table) -> pa.Table:
    """The rows as CSV can hold them: lists as JSON, and an apostrophe before a text that begins with `=`, `+`, `-`,
    `@`, a tab or a carriage return. Numbers are no texts, and stay as they are."""
    for place, field in enumerate(rows.schema):
        column = rows.column(place)
        if pa.types.is_list(field.type):
            column = pa.array([None if each is None else json.dumps(each) for each in column.to_pylist()], pa.string())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
            escaped = pc.binary_join_element_wise("'", column, "")
            column = pc.if_else(pc.match_substring_regex(column, FORMULA), escaped, column)
        rows = rows.set_column(place, field.name, column)
    return rows


def write_csv(parquet: Path) -> Path:
    """A CSV file beside a Parquet file, with the same rows."""
    target = parquet.with_suffix(".csv")
    partial = target.with_name(f".{target.name}.partial")
    with pq.ParquetFile(parquet) as source:
        empty = guarded(source.schema_arrow.empty_table())
        with pa.csv.CSVWriter(partial, empty.schema) as writer:
            for batch in source.iter_batches():
                writer.write_table(guarded(pa.Table.from_batches([batch])))
    partial.replace(target)
    return target
