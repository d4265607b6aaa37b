"""What a run will use, from what runs before it have used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.estimation.fit import NOTHING, Floats, Range, left_out, ranged, rates
from tasks.estimation.past import Past, Source
from tasks.estimation.units import DEFAULTS, Kind, Unit
from tasks.estimation.work import Work

WALL = (1.0, 0.7)
"""Seconds: fixed, and per CPU second; where no run was measured, and in proportion."""

PEAK_MB = (350.0, 1e-4)
"""MiB: fixed, and per row that a run handles."""

MODEL_BYTES, PREDICTION_BYTES = 40_000.0, 60.0
"""Of one model in a bundle and of one prediction in memory, where none was measured."""

COPIES, FILE_COPIES, PREDICTION_COPIES = 2.0, 2.0, 2.0
"""A model is kept in the bundle and in the release, a file as it came and in the table, a prediction on the lake and in
SQL. (Retention takes the first of each pair again, in time.)"""

BUNDLE_BYTES = 600_000.0
"""Of what each new bundle and its release have besides: the tenant-wide model, three times, plots, code."""

BYTES_SPREAD = math.log(1.5)


class CpuModel:
    """CPU seconds of units: of each kind, rates by non-negative least squares (`fit.rates`)."""

    def __init__(self, past: Past) -> None:
        self.rates: dict[Kind, Floats] = {}
        units = past.units
        found = {str(kind): group for kind, group in units.groupby("kind")}
        factor = _overall(units)
        for kind, default in DEFAULTS.items():
            group = found.get(kind.value)
            if group is None:
                self.rates[kind] = factor * np.asarray(default)
            else:
                weights = group["weight"].to_numpy(dtype=np.float64)
                self.rates[kind] = rates(_matrix(group), group["cpu_s"].to_numpy(dtype=np.float64), weights, default)

    def cpu_s(self, units: Sequence[Unit]) -> float:
        return float(sum(self.rates[unit.kind] @ (1.0, unit.partitions, unit.rows) for unit in units))


def _matrix(units: pd.DataFrame) -> Floats:
    return np.column_stack([np.ones(len(units)), units["partitions"], units["rows"]]).astype(np.float64)


def _overall(units: pd.DataFrame) -> float:
    """By what factor measurements exceed the default rates."""
    if not len(units):
        return 1.0
    defaults = np.array([DEFAULTS[Kind(kind)] for kind in units["kind"]])
    return float(units["cpu_s"].sum() / (defaults * _matrix(units)).sum())


@dataclass(frozen=True)
class Estimate:
    """What a run of one use case is expected to use. `runs` are what it rests on, of `source`."""

    source: Source
    runs: int
    cpu_s: Range
    wall_s: Range
    peak_mb: Range
    storage_bytes: Range


def estimate(work: Work, past: Past) -> Estimate:
    """The estimate with its ranges: each holds nine of ten further runs, if they are as those before. How far off the
    model is, is told by leaving out each run in turn and predicting it from the others (`fit.left_out`); where the
    amount of work is itself a guess (`work.doubt`), the range is the wider for it.
    """
    if not work.units:
        return Estimate(past.source, len(past.jobs), NOTHING, NOTHING, NOTHING, NOTHING)
    groups = past.groups
    weights = [float(past.jobs.loc[past.jobs["group"] == group, "weight"].max()) for group in groups]
    expected = CpuModel(past).cpu_s(work.units)
    actual = [float(past.units.loc[past.units["group"] == group, "cpu_s"].sum()) for group in groups]
    deviation, count = left_out(groups, actual, lambda group: _cpu_without(past, group), weights)
    cpu = ranged(expected, math.hypot(deviation, work.doubt), count)
    rows = sum(unit.rows for unit in work.units)
    wall, wall_off = _line(past.jobs, "cpu_s", "wall_s", expected, WALL)
    peak, peak_off = _line(past.jobs, "rows", "peak_mb", rows, PEAK_MB)
    return Estimate(
        past.source,
        len(past.jobs),
        cpu,
        ranged(wall, math.hypot(deviation, wall_off, work.doubt), count),
        ranged(peak, peak_off, count),
        _storage(work, past),
    )


def _cpu_without(past: Past, group: str) -> float:
    left = past.units[past.units["group"] == group]
    units = [
        Unit(Kind(kind), partitions, rows)
        for kind, partitions, rows in zip(left["kind"], left["partitions"], left["rows"], strict=True)
    ]
    return CpuModel(past.without(group)).cpu_s(units)


def _line(jobs: pd.DataFrame, of: str, what: str, at: float, default: tuple[float, float]) -> tuple[float, float]:
    """`what` of a run at that value of `of`, along a line through past runs; and its spread, each left out in turn."""
    x = np.column_stack([np.ones(len(jobs)), jobs[of]]).astype(np.float64)
    y, weights = jobs[what].to_numpy(dtype=np.float64), jobs["weight"].to_numpy(dtype=np.float64)

    def without(place: str) -> float:
        others = np.arange(len(y)) != int(place)
        return float(x[int(place)] @ rates(x[others], y[others], weights[others], default))

    places = [str(place) for place in range(len(y))]
    deviation, _ = left_out(places, y.tolist(), without, weights.tolist())
    return float(rates(x, y, weights, default) @ (1.0, at)), deviation


def _storage(work: Work, past: Past) -> Range:
    """Bytes that stay when the run is done, before retention takes what they replace."""
    model, model_off = _bytes_each(past.units, Kind.TRAINING_BATCH, "partitions", MODEL_BYTES)
    prediction, prediction_off = _bytes_each(past.units, Kind.SCORING_BATCH, "rows", PREDICTION_BYTES)
    bundles = sum(unit.kind is Kind.TRAINING and unit.partitions > 0 for unit in work.units)
    parts = (
        (BUNDLE_BYTES * bundles, BYTES_SPREAD),
        (COPIES * model * work.models, model_off),
        (PREDICTION_COPIES * prediction * work.rows_to_score, prediction_off),
        (FILE_COPIES * work.file_bytes, BYTES_SPREAD),
    )
    total = NOTHING
    for expected, deviation in parts:
        total = total.plus(ranged(expected, math.hypot(deviation, work.doubt), 0))
    return total


def _bytes_each(units: pd.DataFrame, kind: Kind, per: str, default: float) -> tuple[float, float]:
    """Bytes written per model or row, and how much that differs from run to run."""
    mine = units[(units["kind"] == kind.value) & (units[per] > 0)]
    if not len(mine):
        return default, math.log(3)
    by_job = mine.groupby("job")[["bytes_out", per]].sum()
    each = np.log((by_job["bytes_out"] / by_job[per]).clip(lower=1e-3))
    deviation = float(each.std(ddof=1)) if len(each) > 1 else BYTES_SPREAD
    return float(mine["bytes_out"].sum() / mine[per].sum()), max(deviation, 0.05)
