"""Prediction, written once: batch and online scoring, evaluation in training and MLflow models run this.

It is copied into every MLflow model, so it is self-contained: standard library, numpy, pandas, pyarrow, and
LightGBM on first use. It reads a bundle folder: `bundle.json`, `index.parquet`, `models/*.parquet`.

What models see is a `Features`: numbers with infinities as missing, categorical columns as text. What they
return is (n, 1) for regression, still without the baseline column, and (n, k) probabilities for k classes.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

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


def _value_text(value: object, column_type: str = "") -> str:
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
    return codes.astype(np.int64, copy=False), [_value_text(value, column_type) for value in values]


def _encoded(text: str) -> str:
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
        [f"{name}={_encoded(texts[code]) if code >= 0 else ''}" for code in codes[first]]
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
            words = pa.array([*map(_encoded, texts), ""], pa.string())
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


def _date_part(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Floats:
    times = pd.to_datetime(frame[spec["from"]], utc=True, errors="coerce", format="ISO8601").dt
    name = {"weekday": "day_of_week"}.get(spec["part"], spec["part"])
    part: pd.Series = times.isocalendar()["week"] if name == "week" else getattr(times, name)
    return to_number(part)


def _hhmm_to_minutes(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Floats:
    clock = to_number(frame[spec["from"]])
    return np.floor(clock / 100) * 60 + np.mod(clock, 100)


def _difference(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Floats:
    gap = to_number(frame[spec["left"]]) - to_number(frame[spec["right"]])
    if (wrap := spec.get("wrap")) is None:
        return gap
    wrapped = np.mod(gap, wrap)
    return np.where(wrapped >= wrap, 0.0, wrapped)  # -1e-17 mod 1440 rounds to 1440 itself


def _ratio(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Floats:
    left, right = to_number(frame[spec["left"]]), to_number(frame[spec["right"]])
    with np.errstate(over="ignore"):  # an overflow is infinite, and that is missing
        return left / np.where(right == 0, np.nan, right)


def _log1p(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Floats:
    values = to_number(frame[spec["from"]])
    return np.log1p(np.where(values <= -1, np.nan, values))


def _threshold(frame: pd.DataFrame, spec: Mapping[str, Any]) -> Floats:
    values = to_number(frame[spec["from"]])
    return np.where(np.isnan(values), np.nan, (values > spec["above"]).astype(np.float64))


def _lookup(frame: pd.DataFrame, spec: Mapping[str, Any]) -> pd.Series:
    codes, texts = factorize_text(frame[spec["from"]])
    table = spec["table"]
    numbers = all(isinstance(value, int | float) for value in table.values())
    found = pd.Series([*(table.get(text) for text in texts), None], dtype="float64" if numbers else "object")
    return found.iloc[np.where(codes < 0, len(texts), codes)].set_axis(frame.index)


_OPERATIONS: dict[str, Callable[[pd.DataFrame, Mapping[str, Any]], Floats | pd.Series]] = {
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
    column: Floats | pd.Series
    for name, spec in derived.items():
        sources = [spec[key] for key in ("from", "left", "right") if key in spec]
        if all(source in frame.columns for source in sources):
            column = _OPERATIONS[spec["as"]](frame, spec)
            frame[name] = column
    return frame


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
        position = {text: number for number, text in enumerate(categories)}
        table = np.array([*(position.get(text, -1) for text in self.texts[column]), -1], dtype=np.int64)
        return table[self.codes[column]]

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
    categorical = list(dict.fromkeys(categorical))
    missing = [name for name in (*numeric, *categorical) if name not in frame.columns]
    if missing:
        raise ValueError(
            f"feature columns are missing; expected: {', '.join((*numeric, *categorical))}; "
            f"missing: {', '.join(missing)}; found: {', '.join(map(str, frame.columns[:50]))}"
        )
    numbers = np.empty((len(frame), len(numeric)), dtype=np.float64)
    for position, name in enumerate(numeric):
        numbers[:, position] = to_number(frame[name])
    coded = {name: factorize_text(frame[name]) for name in categorical}
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


class Model(NamedTuple):
    """A model, parsed."""

    estimator: str
    spec: dict[str, Any]
    booster: Any

    def predict(self, features: Features, naive: Sequence[float]) -> Floats:
        return predict_model(self.estimator, self.spec, self.booster, features, naive)

    def text(self) -> bytes | None:
        """LightGBM's text; None for what its spec describes whole."""
        return None if self.booster is None else self.booster.model_to_string().encode()


class Scorer:
    """Predicts with a bundle; threads may share it. Models are read on first use, a row group at a time."""

    def __init__(self, folder: Path, about: Mapping[str, Any], entries: dict[str, Entry], cache: int) -> None:
        self.folder, self.about, self.entries, self._cache = folder, about, entries, cache
        self.classes: list[str] = about["classes"]
        self._keyed = bool(entries[TENANT_WIDE].file)
        self._lock = threading.Lock()
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    @classmethod
    def open(cls, folder: str | Path, cache: int = 256) -> Scorer:
        """Reads what describes the bundle, no model yet; `cache` bounds how many parsed models are kept."""
        folder = Path(folder)
        about = json.loads((folder / "bundle.json").read_text())
        if about["format"] != 1:
            raise ValueError(f"unknown bundle format; expected: 1; found: {about['format']}; where: {folder}")
        rows = pq.read_table(folder / "index.parquet").to_pylist()
        tenant_wide = next(row for row in rows if row["partition"] == TENANT_WIDE)
        return cls(folder, about, {row["partition"]: _entry(row, bool(tenant_wide["file"])) for row in rows}, cache)

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
        frame = derive(frame, about["derived"])
        keys = about["partition_by"] if self._keyed else []
        features = encode(frame, about["features"]["numeric"], [*about["features"]["categorical"], *keys])
        unknown = self.entries[TENANT_WIDE]._replace(fallback=True)
        entries = [*(self.entries.get(name, unknown) for name in partitions), unknown]
        naive = np.array([entry.naive for entry in entries])[codes]
        values = naive.copy()
        self._fill(values, codes, partitions, entries, features, threads)
        if about["baseline"] is not None:
            baseline = to_number(frame[about["baseline"]])[:, None]
            values, naive = values + baseline, naive + baseline
        return self._table(codes, [*partitions, ""], entries, values, naive)

    def _fill(
        self,
        values: Floats,
        codes: Integers,
        partitions: pd.Index,
        entries: Sequence[Entry],
        features: Features,
        threads: int,
    ) -> None:
        """Puts the models' answers in the place of the naive rule's."""
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

    def _model(self, partition: str, entry: Entry) -> Model:
        """The parsed model of a partition, from the cache or from its row group."""
        with self._lock:
            if partition in self._models:
                self._models.move_to_end(partition)
                return self._models[partition]
            key = (str(entry.file), entry.row_group)
            if key not in self._groups:
                with pq.ParquetFile(self.folder / key[0]) as file:
                    self._groups[key] = file.read_row_group(key[1], columns=["estimator", "spec", "model"])
                while len(self._groups) > 8:  # neighbours are asked for next; a few groups per thread suffice
                    self._groups.popitem(last=False)
            row = self._groups[key].slice(entry.row, 1).to_pylist()[0]
        booster = load_booster(row["model"]) if row["model"] is not None else None
        model = Model(row["estimator"], json.loads(row["spec"]), booster)
        with self._lock:
            self._models[partition] = model
            while len(self._models) > self._cache:
                self._models.popitem(last=False)
        return model

    def _table(
        self, codes: Integers, partitions: list[str], entries: list[Entry], values: Floats, naive: Floats
    ) -> pa.Table:
        """Arrow columns without a Python object per row."""
        places = pa.array(codes)
        tenant_wide = self.entries[TENANT_WIDE].source_run
        runs = [tenant_wide if entry.answer == "tenant_wide" else entry.source_run for entry in entries]
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
