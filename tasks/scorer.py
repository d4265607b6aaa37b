"""Prediction, written once: batch and online scoring, evaluation in training and MLflow models run this.

It is copied into every MLflow model, so it is self-contained: standard library, numpy, pandas, pyarrow, and
LightGBM on first use. It reads a bundle folder: `bundle.json`, `index.parquet`, `models/*.parquet`.

What models see is a `Features`: numbers with infinities as missing, categorical columns as text. What they
return is (n, 1) for regression, still without the baseline column, and (n, k) probabilities for k classes.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FEW = 4
TENANT_WIDE = "*"
"""Name of the partition whose model answers for all that have none of their own."""

BUNDLE_SCHEMA = pa.schema(
    [
        ("partition", pa.string()),
        ("estimator", pa.string()),  # naive | tenant_wide | linear | lightgbm
        ("spec", pa.string()),  # JSON
        ("model", pa.binary()),  # LightGBM text, null for the others
        ("naive", pa.list_(pa.float64())),  # [constant], or one base rate per class
        ("rows", pa.int64()),
        ("metric", pa.float64()),
        ("naive_metric", pa.float64()),
        ("data_hash", pa.string()),
        ("source_run", pa.int64()),
    ]
)

ANSWER_SCHEMA = pa.schema(
    [
        ("partition", pa.string()),
        ("prediction", pa.float64()),
        ("label", pa.string()),
        ("probabilities", pa.list_(pa.float64())),
        ("baseline", pa.list_(pa.float64())),
        ("answer", pa.string()),
        ("fallback", pa.bool_()),
        ("model_run", pa.int64()),
    ]
)
"""A row's answer: `prediction` is null for classification, `label` and `probabilities` for regression."""


# Values as text: keys, categories
# --------------------------------


def value_text(value: object, column_type: str = "") -> str:
    """One value as text; whole floats lose their `.0`: missing values turn integers into floats."""
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    if isinstance(value, dt.datetime):
        if column_type == "date":
            return value.date().isoformat()
        stamp = value.astimezone(dt.UTC) if value.tzinfo else value
        return stamp.replace(tzinfo=None).isoformat() + "Z"
    return str(value)


def factorize_text(series: pd.Series, column_type: str = "") -> tuple[Integers, list[str]]:
    """Positions in a list of texts, -1 where missing; the work is per distinct value, not per row."""
    if column_type == "timestamp" and not pd.api.types.is_datetime64_any_dtype(series.dtype):
        series = pd.to_datetime(series, utc=True, errors="coerce", format="ISO8601")
    codes, values = pd.factorize(series)
    return codes.astype(np.int64, copy=False), [value_text(value, column_type) for value in values]


def encoded(text: str) -> str:
    return quote(text, safe=" :+-_./")


def partition_names(
    frame: pd.DataFrame, partition_by: Sequence[str], types: Mapping[str, str] | None = None
) -> pd.Series:
    """Canonical partition name per row, `store=12,sku=7`; equal to `tasks.domain.names.partition_name`."""
    # Only integers, text, booleans and dates may be keys, so a timestamp here is a date that pandas widened.
    coded = [factorize_text(frame[name], (types or {}).get(name, "date")) for name in partition_by]
    combined = np.zeros(len(frame), dtype=np.int64)
    for codes, texts in coded:
        combined = pd.factorize(combined * (len(texts) + 1) + codes + 1)[0].astype(np.int64)
    first = np.unique(combined, return_index=True)[1]
    columns = [
        [f"{name}={encoded(texts[code]) if code >= 0 else ''}" for code in codes[first]]
        for name, (codes, texts) in zip(partition_by, coded, strict=True)
    ]
    names = pd.Index([",".join(parts) for parts in zip(*columns, strict=True)], dtype="str")
    return pd.Series(names.take(combined), index=frame.index, name="partition")


def row_keys(frame: pd.DataFrame, row_key: Sequence[str], types: Mapping[str, str] | None = None) -> pd.Series:
    """The row key as text: percent-encoded values joined by `,`; timestamps as `2013-11-01T10:00:00Z`."""
    columns = []
    for name in row_key:
        series = frame[name]
        if pd.api.types.is_integer_dtype(series.dtype):  # often all distinct: no detour over distinct values
            columns.append(pa.array(series, from_pandas=True).cast(pa.string()).fill_null(""))
            continue
        codes, texts = factorize_text(series, (types or {}).get(name, ""))
        words = pa.array([*texts, ""], pa.string())
        if pc.any(pc.match_substring_regex(words, r"[^A-Za-z0-9_.~ :+/-]")).as_py():
            words = pa.array([*map(encoded, texts), ""], pa.string())
        columns.append(words.take(pa.array(np.where(codes < 0, len(texts), codes))))
    joined = pc.binary_join_element_wise(*columns, ",") if len(columns) > 1 else columns[0]
    return pd.Series(joined.to_pandas().astype("str").array, index=frame.index, name="row_key")


def class_positions(column: pd.Series, classes: Sequence[str]) -> Floats:
    """Per row the position of its class, NaN where it is none of them; 1, 1.0 and "1" are one class."""
    position = {name: number for number, name in enumerate(classes)}
    for name, number in list(position.items()):
        position.setdefault(name.removesuffix(".0"), number)
    codes, texts = factorize_text(column)
    table = np.array([*(position.get(text, np.nan) for text in texts), np.nan], dtype=np.float64)
    return table[codes]


# Derived columns
# ---------------


def to_number(series: pd.Series) -> Floats:
    """Values as float64: what is no number or not finite is missing; dates and timestamps are in seconds."""
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        seconds = series.astype("int64").to_numpy() / {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[series.dt.unit]
        return np.where(series.isna(), np.nan, seconds)
    if not pd.api.types.is_numeric_dtype(series.dtype):
        dates = pd.api.types.infer_dtype(series, skipna=True) in {"date", "datetime"}
        if dates:
            return to_number(pd.to_datetime(series, utc=True, errors="coerce", format="ISO8601"))
        series = pd.to_numeric(series.astype("object"), errors="coerce")
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


class Columns(Protocol):
    """Columns of some rows, whatever holds them: what derived columns and features are made of."""

    def __contains__(self, name: object) -> bool: ...

    def names(self) -> list[str]: ...

    def number(self, name: str) -> Floats:
        """As `to_number`."""

    def text(self, name: str) -> tuple[Integers, list[str]]:
        """As `factorize_text`."""

    def part(self, name: str, part: str) -> Floats:
        """A part of dates or times, such as their month; a week's first day, Monday, is 0."""

    def add(self, name: str, values: NDArray[Any]) -> None:
        """A derived column: numbers, or objects with None where missing."""


class FrameColumns:
    """The columns of a frame, which `add` changes. Where `types` does not tell, a time without a zone is a date: the
    use case's table has timestamps in UTC."""

    def __init__(self, frame: pd.DataFrame, types: Mapping[str, str] | None = None) -> None:
        self.frame, self._types = frame, types or {}

    def __contains__(self, name: object) -> bool:
        return name in self.frame.columns

    def names(self) -> list[str]:
        return [str(name) for name in self.frame.columns]

    def number(self, name: str) -> Floats:
        return to_number(self.frame[name])

    def text(self, name: str) -> tuple[Integers, list[str]]:
        series = self.frame[name]
        days = series.dtype.kind == "M" and getattr(series.dtype, "tz", None) is None
        return factorize_text(series, self._types.get(name, "date" if days else ""))

    def part(self, name: str, part: str) -> Floats:
        times = pd.to_datetime(self.frame[name], utc=True, errors="coerce", format="ISO8601").dt
        part = {"weekday": "day_of_week"}.get(part, part)
        found: pd.Series = times.isocalendar()["week"] if part == "week" else getattr(times, part)
        return to_number(found)

    def add(self, name: str, values: NDArray[Any]) -> None:
        self.frame[name] = pd.Series(values, index=self.frame.index, dtype=values.dtype)


def _date_part(columns: Columns, spec: Mapping[str, Any]) -> Floats:
    return columns.part(spec["from"], spec["part"])


def _hhmm_to_minutes(columns: Columns, spec: Mapping[str, Any]) -> Floats:
    clock = columns.number(spec["from"])
    return np.floor(clock / 100) * 60 + np.mod(clock, 100)


def _difference(columns: Columns, spec: Mapping[str, Any]) -> Floats:
    gap = columns.number(spec["left"]) - columns.number(spec["right"])
    if (wrap := spec.get("wrap")) is None:
        return gap
    wrapped = np.mod(gap, wrap)
    return np.where(wrapped >= wrap, 0.0, wrapped)  # -1e-17 mod 1440 rounds to 1440 itself


def _ratio(columns: Columns, spec: Mapping[str, Any]) -> Floats:
    left, right = columns.number(spec["left"]), columns.number(spec["right"])
    with np.errstate(over="ignore"):  # an overflow is infinite, and that is missing
        return left / np.where(right == 0, np.nan, right)


def _log1p(columns: Columns, spec: Mapping[str, Any]) -> Floats:
    values = columns.number(spec["from"])
    return np.log1p(np.where(values <= -1, np.nan, values))


def _threshold(columns: Columns, spec: Mapping[str, Any]) -> Floats:
    values = columns.number(spec["from"])
    return np.where(np.isnan(values), np.nan, (values > spec["above"]).astype(np.float64))


def _lookup(columns: Columns, spec: Mapping[str, Any]) -> NDArray[Any]:
    codes, texts = columns.text(spec["from"])
    table = spec["table"]
    numbers = all(isinstance(value, int | float) for value in table.values())
    found = np.array([*(table.get(text) for text in texts), None], dtype=np.float64 if numbers else object)
    return found[np.where(codes < 0, len(texts), codes)]


_OPERATIONS: dict[str, Callable[[Columns, Mapping[str, Any]], NDArray[Any]]] = {
    "date_part": _date_part,
    "hhmm_to_minutes": _hhmm_to_minutes,
    "difference": _difference,
    "ratio": _ratio,
    "log1p": _log1p,
    "threshold": _threshold,
    "lookup": _lookup,
}


def derive(frame: pd.DataFrame, derived: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The frame with its derived columns added, in the order declared.

    `derived` has the specs of `tasks/domain/derived.py`, dumped as JSON by alias. One whose source the frame
    lacks is left out: a scoring file has no target to derive from. The input stays as it is.
    """
    frame = frame.copy(deep=False)
    derive_columns(FrameColumns(frame), derived)
    return frame


def derive_columns(columns: Columns, derived: Mapping[str, Mapping[str, Any]]) -> None:
    """`derive`, whatever holds the columns."""
    for name, spec in derived.items():
        sources = [spec[key] for key in ("from", "left", "right") if key in spec]
        if all(source in columns for source in sources):
            columns.add(name, _OPERATIONS[spec["as"]](columns, spec))


# Features and models
# -------------------


@dataclass(frozen=True)
class Features:
    """Rows as models see them: `numeric` (n, p), missing as NaN; categories as positions in `texts`."""

    numeric: Floats
    codes: dict[str, Integers]
    texts: dict[str, list[str]]

    def rows(self, which: slice | Integers) -> Features:
        """Some of the rows; a slice copies nothing."""
        return Features(self.numeric[which], {name: codes[which] for name, codes in self.codes.items()}, self.texts)

    def only(self, categorical: Iterable[str]) -> Features:
        """The same rows with these categorical columns alone."""
        return Features(self.numeric, {name: self.codes[name] for name in categorical}, self.texts)

    def positions(self, column: str, categories: Sequence[str]) -> Integers:
        """Per row the position of its value among `categories`, -1 where it is missing or none of them."""
        texts = self.texts[column]
        if len(texts) < FEW:  # to search a list is faster than to build a table of it
            places = [categories.index(text) if text in categories else -1 for text in texts]
        else:
            position = {text: number for number, text in enumerate(categories)}
            places = [position.get(text, -1) for text in texts]
        return np.array([*places, -1], dtype=np.int64)[self.codes[column]]

    def matrix(self, categories: Mapping[str, Sequence[str]]) -> Floats:
        """(n, p + number of categorical columns) for LightGBM; NaN where a category is missing or unknown."""
        if not categories:
            return self.numeric
        columns = [self.positions(name, texts).astype(np.float64) for name, texts in categories.items()]
        coded = np.column_stack(columns)
        coded[coded < 0] = np.nan
        return np.hstack([self.numeric, coded])


def encode(frame: pd.DataFrame, numeric: Sequence[str], categorical: Iterable[str]) -> Features:
    """Features of a frame that has its derived columns. Raises `ValueError`, naming the columns it lacks."""
    return encode_columns(FrameColumns(frame), len(frame), numeric, categorical)


def encode_columns(columns: Columns, count: int, numeric: Sequence[str], categorical: Iterable[str]) -> Features:
    """`encode` of `count` rows, whatever holds their columns."""
    categorical = list(dict.fromkeys(categorical))
    missing = [name for name in (*numeric, *categorical) if name not in columns]
    if missing:
        raise ValueError(
            f"feature columns are missing; expected: {', '.join((*numeric, *categorical))}; "
            f"missing: {', '.join(missing)}; found: {', '.join(columns.names()[:50])}"
        )
    numbers = np.empty((count, len(numeric)), dtype=np.float64)
    for position, name in enumerate(numeric):
        numbers[:, position] = columns.number(name)
    coded = {name: columns.text(name) for name in categorical}
    return Features(numbers, {n: c for n, (c, _) in coded.items()}, {n: t for n, (_, t) in coded.items()})


def load_booster(text: bytes) -> Any:
    """A LightGBM booster from its text."""
    import lightgbm

    return lightgbm.Booster(model_str=text.decode())


def predict_model(
    estimator: str, spec: Mapping[str, Any], booster: Any, features: Features, naive: Sequence[float]
) -> Floats:
    """What a model says: (n, 1) for regression, without the baseline column; (n, k) for k classes.

    `naive` is the naive rule's constant or base rates; its length tells regression from classification.
    Classes that the model has never seen (`spec["present"]` lists those it has) get their base rate.
    """
    if estimator == "naive":
        return np.tile(np.asarray(naive, dtype=np.float64), (len(features.numeric), 1))
    if estimator == "lightgbm":
        matrix = features.matrix(spec["categories"])
        raw = booster.predict(matrix, num_threads=1, validate_features=False) if len(matrix) else np.empty(0)
    elif estimator == "linear":
        raw = _predict_linear(spec, features)
    else:
        raise ValueError(f"unknown estimator {estimator!r}; expected: naive, linear, lightgbm")
    if len(naive) == 1:
        return np.asarray(raw, dtype=np.float64).reshape(-1, 1)
    present = spec["present"]
    raw = np.column_stack([1 - raw, raw]) if len(present) == 2 else raw.reshape(-1, len(present))
    if len(present) == len(naive):
        return raw
    full = np.tile(np.asarray(naive, dtype=np.float64), (len(raw), 1))
    full[:, present] = raw * full[:, present].sum(axis=1, keepdims=True)
    return full


def _predict_linear(spec: Mapping[str, Any], features: Features) -> Floats:
    """Imputed, scaled numbers and one-hot categories times coefficients; the inverse link for classes."""
    numbers = np.where(np.isnan(features.numeric), spec["fill"], features.numeric)
    # Far outside of all that was seen, huge terms would overflow to NaN; a million deviations are enough.
    numbers = np.clip((numbers - spec["mean"]) / spec["scale"], -1e6, 1e6)
    coefficients = np.asarray(spec["coefficients"], dtype=np.float64)  # (outputs, numeric + categories)
    total: Floats = np.einsum("np,op->no", numbers, coefficients[:, : numbers.shape[1]]) + spec["intercepts"]
    offset = numbers.shape[1]
    for name, categories in spec["categories"].items():
        effects = np.vstack([coefficients[:, offset : offset + len(categories)].T, np.zeros(len(coefficients))])
        total += effects[features.positions(name, categories)]
        offset += len(categories)
    present = spec.get("present")
    if present is None:
        return total
    if len(present) == 2:
        positive: Floats = 1 / (1 + np.exp(-np.clip(total[:, 0], -500, 500)))
        return positive
    powers: Floats = np.exp(total - total.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


# The scorer
# ----------


class Entry(NamedTuple):
    """A row of `index.parquet`: who answers for a partition, and where its model is."""

    file: str | None
    row_group: int
    row: int
    answer: str
    fallback: bool
    naive: list[float]
    source_run: int


class Answers(NamedTuple):
    """Per partition, and for rows without one at last: who answers, and the run of its model. Per row: what is
    predicted, what the naive rule says, and the features that models saw."""

    entries: list[Entry]
    runs: list[int]
    values: Floats
    naive: Floats
    features: Features


_PART = re.compile(r"models/[A-Za-z0-9_-][A-Za-z0-9_.-]*\.parquet")


class Model(NamedTuple):
    """A model, parsed; `size` is that of its stored text, in bytes."""

    estimator: str
    spec: dict[str, Any]
    booster: Any
    size: int = 0

    def predict(self, features: Features, naive: Sequence[float]) -> Floats:
        return predict_model(self.estimator, self.spec, self.booster, features, naive)

    def text(self) -> bytes | None:
        """LightGBM's text; None for what its spec describes whole."""
        return None if self.booster is None else self.booster.model_to_string().encode()


class Models(Protocol):
    """Where parsed models are kept."""

    def get(self, partition: str, load: Callable[[], Model]) -> Model:
        """The model of a partition, loaded where it is not kept."""


class LatestModels:
    """Keeps so many models, those that were asked for last; threads may share it."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._models: OrderedDict[str, Model] = OrderedDict()

    def get(self, partition: str, load: Callable[[], Model]) -> Model:
        with self._lock:
            if partition in self._models:
                self._models.move_to_end(partition)
                return self._models[partition]
        model = load()
        with self._lock:
            self._models[partition] = model
            while len(self._models) > self._most:
                self._models.popitem(last=False)
        return model


class Scorer:
    """Predicts with a bundle; threads may share it. Models are read on first use, a row group at a time."""

    def __init__(
        self, folder: Path, about: Mapping[str, Any], entries: dict[str, Entry], models: Models, groups: int
    ) -> None:
        self.folder, self.about, self.entries, self._models, self._most_groups = folder, about, entries, models, groups
        self.classes: list[str] = about["classes"]
        self._keyed = bool(entries[TENANT_WIDE].file)
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    @classmethod
    def open(cls, folder: str | Path, models: Models | None = None, groups: int = 8) -> Scorer:
        """Reads what describes the bundle, no model yet. `models` keeps the parsed ones, by default the 256 latest;
        `groups` says how many row groups of the files are kept, for the neighbours that are asked for next."""
        folder = Path(folder)
        about = json.loads((folder / "bundle.json").read_text())
        if about["format"] != 1:
            raise ValueError(f"unknown bundle format; expected: 1; found: {about['format']}; where: {folder}")
        rows = pq.read_table(folder / "index.parquet").to_pylist()
        tenant_wide = next(row for row in rows if row["partition"] == TENANT_WIDE)
        for file in {row["file"] for row in rows} - {None}:
            if not _PART.fullmatch(file):  # it would be read, wherever it is
                raise ValueError(
                    f"not a file of the bundle; expected: models/….parquet; found: {file}; where: {folder}"
                )
        entries = {row["partition"]: _entry(row, bool(tenant_wide["file"])) for row in rows}
        return cls(folder, about, entries, models or LatestModels(256), groups)

    def predict(self, frame: pd.DataFrame, threads: int = 1) -> pd.DataFrame:
        """One row per input row, in input order, with its index and the columns of `ANSWER_SCHEMA`."""
        table = self.predict_table(frame, threads=threads)
        lists = [field.name for field in table.schema if pa.types.is_list(field.type)]
        answers = pd.DataFrame(table.drop_columns(lists).to_pandas())
        for name in lists:
            answers[name] = pd.Series(table[name].to_pylist(), dtype="object")
        return answers.reindex(columns=ANSWER_SCHEMA.names).set_axis(frame.index)

    def predict_table(self, frame: pd.DataFrame, names: pd.Series | None = None, threads: int = 1) -> pa.Table:
        """One row per input row, in input order: `ANSWER_SCHEMA`. `frame` has the contract's columns.

        `names` are the rows' canonical partition names, for callers that have them. A prediction is
        missing only where the baseline column is. Raises `ValueError` when a feature's column is missing.
        """
        about = self.about
        if names is None:
            names = partition_names(frame, about["partition_by"], about.get("columns"))
        codes, partitions = pd.factorize(names)
        codes = np.where(codes < 0, len(partitions), codes)
        answers = self.answer(FrameColumns(frame.copy(deep=False), about.get("columns")), codes, [*partitions], threads)
        return self._table(codes, [*partitions, ""], answers)

    def answer(self, columns: Columns, codes: Integers, partitions: Sequence[str], threads: int = 1) -> Answers:
        """What is predicted for rows of which `codes` says which of the partitions each belongs to; rows with a code
        beyond them have no partition. `columns` are the contract's; derived ones are added.
        """
        about = self.about
        derive_columns(columns, about["derived"])
        keys = about["partition_by"] if self._keyed else []
        categorical = [*about["features"]["categorical"], *keys]
        features = encode_columns(columns, len(codes), about["features"]["numeric"], categorical)
        unknown = self.entries[TENANT_WIDE]._replace(fallback=True)
        entries = [*(self.entries.get(name, unknown) for name in partitions), unknown]
        naive = np.array([entry.naive for entry in entries])[codes]
        values = naive.copy()
        self._fill(values, codes, partitions, entries, features, threads)
        if about["baseline"] is not None:
            baseline = columns.number(about["baseline"])[:, None]
            values, naive = values + baseline, naive + baseline
        tenant_wide = self.entries[TENANT_WIDE].source_run
        runs = [tenant_wide if entry.answer == "tenant_wide" else entry.source_run for entry in entries]
        return Answers(entries, runs, values, naive, features)

    def _fill(
        self,
        values: Floats,
        codes: Integers,
        partitions: Sequence[str],
        entries: Sequence[Entry],
        features: Features,
        threads: int,
    ) -> None:
        """Puts the models' answers in the place of the naive rule's."""
        if len(partitions) == 1 and not codes.any():
            if (model := self.model_of(partitions[0], entries[0])) is not None:
                values[:] = model.predict(features, entries[0].naive)
            return
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(entries) + 1))
        in_order = bool((np.diff(order) == 1).all())

        def rows_of(number: int) -> slice | Integers:
            part = slice(bounds[number], bounds[number + 1])
            return part if in_order else order[part]

        def answer(number: int) -> None:
            rows = rows_of(number)
            model = self._model(partitions[number], entries[number])
            values[rows] = model.predict(features.rows(rows), entries[number].naive)

        own = [n for n, entry in enumerate(entries) if entry.answer == "own" and bounds[n] < bounds[n + 1]]
        if threads > 1 and len(own) > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(answer, own))
        else:
            for number in own:
                answer(number)
        shared = np.array([entry.answer == "tenant_wide" for entry in entries])[codes]
        if shared.any():
            rows, entry = np.flatnonzero(shared), self.entries[TENANT_WIDE]
            values[rows] = self._model(TENANT_WIDE, entry).predict(features.rows(rows), entry.naive)

    def model_of(self, partition: str, entry: Entry) -> Model | None:
        """The model that answers for a partition; None where the naive rule does."""
        if entry.answer == "naive":
            return None
        if entry.answer == "tenant_wide":
            return self._model(TENANT_WIDE, self.entries[TENANT_WIDE])
        return self._model(partition, entry)

    def _model(self, partition: str, entry: Entry) -> Model:
        """The parsed model of a partition, kept or from its row group."""
        return self._models.get(partition, lambda: self._load(entry))

    def _load(self, entry: Entry) -> Model:
        with self._lock:
            key = (str(entry.file), entry.row_group)
            if key not in self._groups:
                with pq.ParquetFile(self.folder / key[0]) as file:
                    self._groups[key] = file.read_row_group(key[1], columns=["estimator", "spec", "model"])
            row = self._groups[key].slice(entry.row, 1).to_pylist()[0]
            while len(self._groups) > self._most_groups:
                self._groups.popitem(last=False)
        booster = load_booster(row["model"]) if row["model"] is not None else None
        return Model(row["estimator"], json.loads(row["spec"]), booster, len(row["model"] or b"") + len(row["spec"]))

    def _table(self, codes: Integers, partitions: list[str], answers: Answers) -> pa.Table:
        """Arrow columns without a Python object per row."""
        places = pa.array(codes)
        entries, runs, values, naive, _ = answers
        count, nothing = len(codes), [pa.nulls(len(codes), field.type) for field in ANSWER_SCHEMA]
        columns = {
            "partition": pa.array(partitions, pa.string()).take(places),
            "baseline": _lists(naive),
            "answer": pa.array([entry.answer for entry in entries], pa.string()).take(places),
            "fallback": pa.array([entry.fallback for entry in entries], pa.bool_()).take(places),
            "model_run": pa.array(runs, pa.int64()).take(places),
        }
        if self.classes:
            best = pa.array(values.argmax(axis=1) if count else np.empty(0, dtype=np.int64))
            columns |= {
                "label": pa.array(self.classes, pa.string()).take(best),
                "probabilities": _lists(values),
            }
        else:
            columns["prediction"] = pa.array(values[:, 0], from_pandas=True)
        return pa.table(
            [columns.get(field.name, empty) for field, empty in zip(ANSWER_SCHEMA, nothing, strict=True)],
            schema=ANSWER_SCHEMA,
        )


def _lists(matrix: Floats) -> pa.Array:
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.ravel(), from_pandas=True))


def _entry(row: Mapping[str, Any], tenant_wide: bool) -> Entry:
    """An index row whose answer can be given: lacking a model, the tenant-wide one, then the naive rule."""
    answer, fallback = row["answer"], row["fallback"]
    if answer == "own" and row["estimator"] in {"naive", "tenant_wide"}:
        answer = row["estimator"]
    if answer == "own" and row["file"] is None:
        answer, fallback = "tenant_wide", True
    if answer == "tenant_wide" and not tenant_wide:
        answer, fallback = "naive", True
    return Entry(row["file"], row["row_group"], row["row"], answer, fallback, row["naive"], row["source_run"])
