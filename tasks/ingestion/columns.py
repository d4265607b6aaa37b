"""Which columns a file must have, and cells as typed values. A cell that cannot be read is null, and marked as bad."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.domain.contract import ColumnType
from tasks.domain.errors import ContractBroken
from tasks.domain.names import Purpose
from tasks.domain.use_case import UseCase
from tasks.ingestion.streams import UploadedFile
from tasks.ports import ARROW_TYPES

Mask = npt.NDArray[np.bool_]

MAX_COLUMNS = 2_000

NULLS = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "Null", "null", "None"]
"""Text that means a missing value, in all but string columns: there only the empty text does."""

TRUE, FALSE = ["true", "1", "yes", "1.0"], ["false", "0", "no", "0.0"]

WORDS = {
    ColumnType.INTEGER: "an integer",
    ColumnType.NUMBER: "a number",
    ColumnType.STRING: "text",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.DATE: "a date (2013-11-30)",
    ColumnType.TIMESTAMP: "a timestamp (2013-11-30T10:00:00Z)",
}

_INTEGER = r"^[+-]?[0-9]{1,30}(\.0*)?$"
_NAN = r"^(?i:[+-]?nan(\([a-z0-9_]*\))?)$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^(?i:[+-]?inf(inity)?)$"


def check_columns(found: Sequence[str], use_case: UseCase, purpose: Purpose, source: UploadedFile) -> tuple[str, ...]:
    """The contract's columns for this purpose, all of which the file has. Columns that the contract knows but this
    purpose does not need are left unread. Raises `ContractBroken` for duplicate, missing, unknown, too many columns."""
    where, known = source.name, use_case.contract.columns

    def named(names: Sequence[str]) -> str:
        """Names for a message. A file without a header has its first row in their place."""
        if source.quotable:
            return _listed(names)
        others = sum(name not in known for name in names)
        counted = [f"{others:,} that the contract does not have"] if others else []
        return ", ".join([*filter(None, [_listed([name for name in names if name in known])]), *counted])

    if len(found) > MAX_COLUMNS:
        raise ContractBroken(f"the file has {len(found):,} columns", expected=f"at most {MAX_COLUMNS:,}", where=where)
    if repeated := [name for name, times in Counter(found).items() if times > 1]:
        raise ContractBroken(
            f"the header names a column twice: {named(repeated)}",
            where=where,
            hint="rename or remove one of them: which one is meant cannot be known",
        )
    needed = use_case.columns_for(purpose)
    if missing := [name for name in needed if name not in set(found)]:
        raise ContractBroken(
            f"missing column{'s' * (len(missing) > 1)} for {purpose}: {_listed(missing)}",
            expected=_listed(needed),
            found=named(found),
            where=where,
            hint="column names are compared exactly; add the column, or change the use case's contract",
        )
    unknown = [name for name in found if name not in known]
    if unknown and use_case.contract.extra_columns == "refuse":
        raise ContractBroken(
            f"unknown column{'s' * (len(unknown) > 1)}: {named(unknown)}",
            expected=_listed(known),
            where=where,
            hint="remove it, declare it in the contract, or set extra_columns: ignore",
        )
    return needed


def _listed(names: Iterable[str], most: int = 12) -> str:
    shown = [name[:63] for name in names]
    more = f" and {len(shown) - most:,} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def convert(column: pa.ChunkedArray, kind: ColumnType) -> tuple[pa.ChunkedArray, Mask | None]:
    """A column as the contract's type, and which cells could not be read (None: all could). NaN becomes null."""
    target = ARROW_TYPES[kind]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), target)]), None
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type):
        return _from_text(column, kind)
    if column.type == target:
        return _in_calendar(column, column, kind)
    try:
        if kind is ColumnType.BOOLEAN:  # a cast would take 2 for true
            raise pa.ArrowInvalid
        if kind is ColumnType.STRING and pa.types.is_floating(column.type):  # and write 1e+12
            raise pa.ArrowInvalid
        from_time, to_time = pa.types.is_temporal(column.type), kind in _CALENDAR
        if from_time is not to_time and kind is not ColumnType.STRING:
            raise pa.ArrowInvalid  # and count from 1970, in whatever unit
        if kind is ColumnType.TIMESTAMP and pa.types.is_timestamp(column.type):
            if column.type.tz is None:  # without an offset it is UTC
                column = column.cast(pa.timestamp("us"), safe=False)
            return _in_calendar(column.cast(target, safe=False), column, kind)
        if kind is ColumnType.DATE and pa.types.is_timestamp(column.type):
            return _in_calendar(_days(column), column, kind)
        return _in_calendar(column.cast(target), column, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _from_text(_as_text(column), kind)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        if pa.types.is_floating(column.type):
            column = column.cast(pa.float64())
            whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**62))
            digits = pc.if_else(whole, column, pa.scalar(None, pa.float64())).cast(pa.int64()).cast(pa.string())
            return pc.coalesce(digits, column.cast(pa.string()))
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # nested or binary values
        return pa.chunked_array([pa.array([_text_of(value) for value in column.to_pylist()], pa.string())])


def _text_of(value: object) -> str | None:
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return None if value is None else str(value)


def _from_text(text: pa.ChunkedArray, kind: ColumnType) -> tuple[pa.ChunkedArray, Mask | None]:
    if kind is ColumnType.STRING:
        return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), None
    text = pc.utf8_trim_whitespace(text)
    text = pc.if_else(pc.is_in(text, value_set=pa.array(NULLS)), pa.scalar(None, pa.string()), text)
    target = ARROW_TYPES[kind]
    if kind is ColumnType.NUMBER:  # as it is written by others: `NAN`, `-nan`
        text = pc.if_else(pc.match_substring_regex(text, _NAN), pa.scalar(None, pa.string()), text)
    if kind in {ColumnType.INTEGER, ColumnType.NUMBER}:
        try:
            return text.cast(target), None
        except pa.ArrowInvalid:
            pass
    return _in_calendar(_READ[kind](text), text, kind)


def _in_calendar(
    values: pa.ChunkedArray, source: pa.ChunkedArray, kind: ColumnType
) -> tuple[pa.ChunkedArray, Mask | None]:
    """The values, and which of the source's have none. Nor have days that are not Python's: Arrow has a year 0."""
    if kind in _CALENDAR and values.null_count < len(values):
        first, last = (pa.scalar(day, values.type) for day in _CALENDAR[kind])
        found = pc.min_max(values)
        if not (pc.greater_equal(found["min"], first).as_py() and pc.less_equal(found["max"], last).as_py()):
            there = pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last))
            values = pc.if_else(there, values, pa.scalar(None, values.type))
    if values.null_count == source.null_count:
        return values, None
    return values, pc.and_(source.is_valid(), values.is_null()).to_numpy()


def _chosen(text: pa.ChunkedArray, good: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(good, text, pa.scalar(None, pa.string()))


def _integers(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers, also `12.0`, within 64 bits."""
    whole = _chosen(text, pc.match_substring_regex(text, _INTEGER))
    whole = pc.replace_substring_regex(whole, r"\.0*$|^\+", "")
    try:
        return whole.cast(pa.int64())
    except pa.ArrowInvalid:  # beyond 64 bits
        numbers = [None if v is None else int(v) for v in whole.to_pylist()]
        fitting = [v if v is not None and -(2**63) <= v < 2**63 else None for v in numbers]
        return pa.chunked_array([pa.array(fitting, pa.int64())])


def _numbers(text: pa.ChunkedArray) -> pa.ChunkedArray:
    number = _chosen(text, pc.match_substring_regex(text, _NUMBER))
    number = pc.replace_substring_regex(number, r"^\+", "")
    return number.cast(pa.float64())


def _booleans(text: pa.ChunkedArray) -> pa.ChunkedArray:
    lower = pc.utf8_lower(text)
    true = pc.is_in(lower, value_set=pa.array(TRUE))
    known = pc.or_(true, pc.is_in(lower, value_set=pa.array(FALSE)))
    return pc.if_else(known, true, pa.scalar(None, pa.bool_()))


def _timestamps(text: pa.ChunkedArray) -> pa.ChunkedArray:
    for naive in (pa.timestamp("us"), pa.timestamp("us", "UTC")):  # whole columns without, or with, an offset
        try:
            return text.cast(naive).cast(ARROW_TYPES[ColumnType.TIMESTAMP])
        except pa.ArrowInvalid:
            continue
    parsed = pd.to_datetime(text.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    return pa.chunked_array([pa.array(parsed.dt.as_unit("us"), ARROW_TYPES[ColumnType.TIMESTAMP], from_pandas=True)])


def _dates(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Calendar dates; a time of day is fine when it is midnight, as spreadsheets write it."""
    days = pc.replace_substring_regex(text, r"[T ]00:00(:00(\.0*)?)?(Z|\+00:00)?$", "")
    try:
        return days.cast(pa.date32())
    except pa.ArrowInvalid:
        days = _chosen(days, pc.match_substring_regex(days, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))
        parsed = pd.to_datetime(days.to_pandas(), format="%Y-%m-%d", errors="coerce")
        return pa.chunked_array([pa.array(parsed.dt.as_unit("s"), pa.timestamp("s"), from_pandas=True)]).cast(
            pa.date32()
        )


def _days(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Calendar dates of points in time that are midnight where they are; a cast would cut off the time of day."""
    return pc.if_else(pc.equal(pc.floor_temporal(times, unit="day"), times), times, None).cast(pa.date32())


_CALENDAR = {
    ColumnType.DATE: (dt.date.min, dt.date.max),
    ColumnType.TIMESTAMP: (dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)),
}
"""The first and the last day, or point in time, that there is."""

_READ = {
    ColumnType.INTEGER: _integers,
    ColumnType.NUMBER: _numbers,
    ColumnType.BOOLEAN: _booleans,
    ColumnType.DATE: _dates,
    ColumnType.TIMESTAMP: _timestamps,
}
