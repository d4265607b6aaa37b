"""Rows of a request as typed columns, or what is wrong with them: row, column and rule.

A value has the type that JSON gives it, or is text as a file would have it; then it is read by the code that reads
files. The rules and their words are those of ingestion; a test holds both to each other.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tasks.domain.contract import Column, ColumnType, Personal
from tasks.domain.names import Purpose
from tasks.domain.use_case import UseCase
from tasks.personal import Pseudonyms
from tasks.scorer import Floats, FrameColumns, Integers, value_text

Value = Any
"""A typed value: int, float, str, bool, `datetime.date`, or `datetime.datetime` in UTC; None where missing."""


class Mistake(NamedTuple):
    """What is wrong with a row; `row` counts from 0, `column` is empty where it is about the row as a whole."""

    row: int
    column: str
    rule: str


class BadRows(Exception):
    """The rows do not fit the contract."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(f"{len(mistakes)} mistakes")
        self.mistakes = tuple(mistakes)


class RowColumns:
    """Implements `tasks.scorer.Columns` for a few rows, without the cost of a frame."""

    def __init__(self, values: dict[str, Sequence[Value] | NDArray[Any]], count: int) -> None:
        self._values, self.count = values, count

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def names(self) -> list[str]:
        return list(self._values)

    def __getitem__(self, name: str) -> Sequence[Value] | NDArray[Any]:
        return self._values[name]

    def number(self, name: str) -> Floats:
        values = self._values[name]
        if isinstance(values, np.ndarray) and values.dtype == np.float64:
            return np.where(np.isfinite(values), values, np.nan)
        if len(values) == 1 and type(values[0]) is float:
            return np.array(values) if math.isfinite(values[0]) else np.array([math.nan])
        return np.array([self._number(value) for value in values], dtype=np.float64)

    def _number(self, value: Value) -> float:
        if value is None:
            return math.nan
        if isinstance(value, bool | int | float):
            number = float(value)
            return number if math.isfinite(number) else math.nan
        return float(self._slowly([value]).number("value")[0])

    def text(self, name: str) -> tuple[Integers, list[str]]:
        places: dict[str, int] = {}
        codes = [
            -1
            if value is None or value != value
            else places.setdefault(value if type(value) is str else value_text(value), len(places))
            for value in self._values[name]
        ]
        return np.array(codes, dtype=np.int64), list(places)

    def part(self, name: str, part: str) -> Floats:
        return np.array([self._part(value, part) for value in self._values[name]], dtype=np.float64)

    def _part(self, value: Value, part: str) -> float:
        if value is None:
            return math.nan
        if isinstance(value, dt.date) and part in _PARTS:
            return float(_PARTS[part](value))
        return float(self._slowly([value]).part("value", part)[0])

    @staticmethod
    def _slowly(values: Sequence[Value]) -> FrameColumns:
        return FrameColumns(pd.DataFrame({"value": pd.Series(values, dtype="object").infer_objects()}))

    def add(self, name: str, values: NDArray[Any]) -> None:
        self._values[name] = values


_PARTS: dict[str, Callable[[Any], int]] = {
    "year": lambda day: day.year,
    "quarter": lambda day: (day.month + 2) // 3,
    "month": lambda day: day.month,
    "week": lambda day: day.isocalendar().week,
    "day": lambda day: day.day,
    "day_of_year": lambda day: day.timetuple().tm_yday,
    "weekday": lambda day: day.weekday(),
    "hour": lambda day: getattr(day, "hour", 0),
    "minute": lambda day: getattr(day, "minute", 0),
}


class RowReader:
    """Reads rows for one use case; made once, used for every request."""

    def __init__(
        self, use_case: UseCase, convert: Callable[[pa.ChunkedArray, ColumnType], Any], pseudonyms: Pseudonyms
    ) -> None:
        """`convert` reads text as files are read: `tasks.ingestion.columns.convert`."""
        contract = use_case.contract
        self._columns = {name: contract.columns[name] for name in use_case.columns_for(Purpose.SCORING)}
        self._checks = {name: _checks(name, column) for name, column in self._columns.items()}
        self._known = contract.columns.keys()
        self._strict = contract.extra_columns == "refuse"
        self._personal = {name: contract.columns[name].personal for name in contract.personal}
        self._convert, self._pseudonyms = convert, pseudonyms

    def read(self, rows: Sequence[object]) -> RowColumns:
        """The columns that scoring needs, of personal ones what may be kept. Raises `BadRows`."""
        mistakes: list[Mistake] = []
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                mistakes.append(Mistake(number, "", "a row is an object of columns and values"))
            elif self._strict and not row.keys() <= self._known:
                unknown = sorted(str(name)[:63] for name in row.keys() - self._known)
                mistakes += [Mistake(number, name, "the contract has no such column") for name in unknown[:20]]
        if mistakes:
            raise BadRows(mistakes)
        values: dict[str, Sequence[Value] | NDArray[Any]] = {}
        for name, column in self._columns.items():
            found = []
            for number, row in enumerate(rows):
                assert isinstance(row, Mapping)
                value, rule = self._value(row.get(name), column)
                if rule is None:
                    for check, text in self._checks[name]:
                        if not check(value):
                            rule = text
                            break
                if rule is not None:
                    mistakes.append(Mistake(number, name, rule.replace("{name}", name)))
                found.append(value)
            values[name] = found
        if mistakes:
            raise BadRows(sorted(mistakes))
        for name in self._personal.keys() & values.keys():
            said = values.pop(name)
            if self._personal[name] is Personal.HASH:
                values[name] = [None if value is None else self._pseudonyms.of(value) for value in said]
        return RowColumns(values, len(rows))

    def _value(self, raw: object, column: Column) -> tuple[Value, str | None]:
        """A typed value, or the rule that it breaks."""
        if raw is None:
            return None, None
        kind, given = column.type, type(raw)
        if given is str:
            assert isinstance(raw, str)
            if kind is ColumnType.STRING:
                return raw or None, None
            if kind is ColumnType.DATE and _DATE.fullmatch(raw):
                with suppress(ValueError):
                    return dt.date.fromisoformat(raw), None
            if kind is ColumnType.TIMESTAMP and _TIMESTAMP.fullmatch(raw):
                with suppress(ValueError, OverflowError):
                    return dt.datetime.fromisoformat(raw).astimezone(dt.UTC), None
        elif given is float:
            assert isinstance(raw, float)
            if math.isnan(raw):
                return None, None
            if kind is ColumnType.NUMBER:
                return raw, None
            if kind is ColumnType.INTEGER and raw.is_integer() and abs(raw) < 2**53:
                return int(raw), None
        elif given is int:
            assert isinstance(raw, int)
            if kind is ColumnType.INTEGER and -(2**63) <= raw < 2**63:
                return raw, None
            if kind is ColumnType.NUMBER:
                return float(raw), None
        elif given is bool and kind is ColumnType.BOOLEAN:
            return raw, None
        elif given in (dict, list):
            return None, f"{{name}} is not {_WORDS[kind]}"
        return self._from_text(raw, kind)

    def _from_text(self, raw: object, kind: ColumnType) -> tuple[Value, str | None]:
        text = raw if isinstance(raw, str) else str(raw).lower() if isinstance(raw, bool) else str(raw)
        read, bad = self._convert(pa.chunked_array([pa.array([text], pa.string())]), kind)
        if bad is not None:
            return None, f"{{name}} is not {_WORDS[kind]}"
        return read[0].as_py(), None


_WORDS = {
    ColumnType.INTEGER: "an integer",
    ColumnType.NUMBER: "a number",
    ColumnType.STRING: "text",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.DATE: "a date (2013-11-30)",
    ColumnType.TIMESTAMP: "a timestamp (2013-11-30T10:00:00Z)",
}

# The usual spellings, of which the standard library makes the same as the reader of files, sooner.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3}|\.[0-9]{6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)

Check = tuple[Callable[[Any], bool], str]


def _checks(name: str, column: Column) -> list[Check]:
    """What a value must satisfy, each with the text of its rule, in the order of ingestion's rules."""
    found: list[Check] = []
    if not column.nullable:
        found.append((lambda value: value is not None, f"{name} is missing"))
    low = -math.inf if column.min is None else column.min
    high = math.inf if column.max is None else column.max
    if column.type is not ColumnType.BOOLEAN and (column.min is not None or column.max is not None):
        text = f"{name} is outside {low:g} to {high:g}"
        found.append((lambda value: value is None or (low <= value <= high and math.isfinite(value)), text))
    elif column.type is ColumnType.NUMBER and not column.nullable:
        found.append((lambda value: value is None or math.isfinite(value), f"{name} is not finite"))
    if column.allowed is not None:
        allowed = _allowed(column)
        found.append((lambda value: value is None or value in allowed, f"{name} is not an allowed value"))
    if column.pattern is not None:
        pattern = re.compile(column.pattern)
        text = f"{name} does not match {column.pattern}"
        found.append((lambda value: value is None or pattern.search(value) is not None, text))
    return found


def _allowed(column: Column) -> frozenset[Any]:
    values: tuple[Any, ...] = column.allowed or ()
    if column.type is ColumnType.DATE:
        return frozenset(pd.Timestamp(str(value)).date() for value in values)
    if column.type is ColumnType.TIMESTAMP:
        return frozenset(pd.to_datetime(str(value), utc=True).to_pydatetime() for value in values)
    return frozenset(values)
