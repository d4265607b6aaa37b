"""A piece of an uploaded file: typed rows, and what of it could not be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from tasks.domain.use_case import UseCase
from tasks.ingestion.columns import WORDS, convert
from tasks.ports import UNPARSED

CHUNK_ROWS = 1_000_000

Lines = npt.NDArray[np.int64]
Raw = Callable[[npt.NDArray[np.int64]], list[dict[str, object]]]


@dataclass(frozen=True)
class Broken:
    """A record that is no row at all: its line, why, and its text."""

    line: int
    rule: str
    text: str


@dataclass(frozen=True)
class Chunk:
    """At most a million rows.

    Attributes:
        frame: the contract's columns, typed, with `UNPARSED`; its index is 0, 1, 2 ...
        lines: of each row, its place in the file; a header counts as line 1.
        raw: the rows at some positions as the file has them.
        broken: records that have no place in the frame.
    """

    frame: pd.DataFrame
    lines: Lines
    raw: Raw
    broken: Sequence[Broken] = ()


def typed_frame(columns: Mapping[str, pa.ChunkedArray], use_case: UseCase) -> pd.DataFrame:
    """Columns of any type as a typed frame; unreadable cells are null and listed in `UNPARSED`, a rule per line."""
    series: dict[str, pd.Series] = {}
    rows = len(next(iter(columns.values())))
    unparsed: npt.NDArray[np.object_] | None = None
    for name, column in columns.items():
        kind = use_case.contract.columns[name].type
        values, bad = convert(column, kind)
        series[name] = _series(values)
        if bad is None:
            continue
        if unparsed is None:
            unparsed = np.full(rows, None, dtype=object)
        rule = f"{name} is not {WORDS[kind]}"
        at = np.flatnonzero(bad)
        unparsed[at] = [rule if text is None else f"{text}\n{rule}" for text in unparsed[at]]
    text = pa.array(unparsed, pa.string()) if unparsed is not None else pa.nulls(rows, pa.string())
    return pd.DataFrame({**series, UNPARSED: text.to_pandas()})


def rows_at(table: pa.Table, at: Lines) -> list[dict[str, object]]:
    """Rows of a table at some positions."""
    rows: list[dict[str, object]] = table.take(pa.array(at)).to_pylist()
    return rows


def _series(values: pa.ChunkedArray) -> pd.Series:
    """pandas has no null in int64 and bool; float64 would round large keys, so nullable types take over."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    mapper = nullable.get if values.null_count else None
    series: pd.Series = values.to_pandas(date_as_object=False, types_mapper=mapper)
    return series
