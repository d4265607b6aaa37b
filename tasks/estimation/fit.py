"""What past runs teach: rates that are never negative, and how far off they have been."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import t as student

Floats = NDArray[np.float64]

PRIOR = 0.01
"""Share of the measurements' own weight that the default rates, scaled to fit them as a whole, have beside them."""

COVERAGE = 0.9
"""Of the ranges: so often the next run should be inside."""

UNKNOWN_SPREAD = math.log(3)
"""Of the logarithm of actual over expected, where nothing was measured: three times as much, or a third."""

FEW, FEW_SPREAD = 4, math.log(1.5)
"""Fewer runs than so many cannot say how far off another may be: this stands in for each that is missing."""


@dataclass(frozen=True)
class Range:
    """An expectation with its range."""

    low: float
    expected: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(self.low * factor, self.expected * factor, self.high * factor)

    def plus(self, other: Range) -> Range:
        """The sum. Ends are added: runs of one platform tend to be off in the same direction."""
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)


NOTHING = Range(0.0, 0.0, 0.0)


def rates(x: Floats, y: Floats, weights: Floats, default: Sequence[float]) -> Floats:
    """Rates `b ≥ 0` such that `x · b` is about `y`: weighted non-negative least squares (Lawson and Hanson 1974).

    A measurement's variance is taken to grow with what is expected of it, as counts do. The default rates, times the
    one factor by which all of the measurements exceed them, stand beside the measurements as a ridge (Hoerl and
    Kennard 1970) of the weight `PRIOR`: with a single measurement they are the answer, and where measurements of one
    size cannot tell rates apart, they decide. Three rounds of Huber's weights (1964) keep a unit that something else
    on the machine slowed down from deciding.
    """
    start = np.asarray(default, dtype=np.float64)
    if not len(y):
        return start
    expected = x @ start
    factor = float((weights * y).sum() / max(1e-12, float((weights * expected).sum())))
    prior = factor * start
    variance = np.maximum(factor * expected, 1e-6)
    robust = np.ones_like(y)
    found = prior
    for _ in range(3):
        scale = np.sqrt(weights * robust / variance)
        columns = x * scale[:, None]
        ridge = np.sqrt(PRIOR) * np.sqrt((columns**2).sum(axis=0))
        found, _ = nnls(np.vstack([columns, np.diag(ridge)]), np.concatenate([y * scale, ridge * prior]))
        residuals = np.abs(y - x @ found) / np.sqrt(variance)
        usual = 1.4826 * float(np.median(residuals))
        robust = np.minimum(1.0, 1.345 * max(usual, 1e-9) / np.maximum(residuals, 1e-12))
    return found


def spread(logs: Sequence[float], weights: Sequence[float]) -> tuple[float, int]:
    """Weighted root mean square of logarithms of actual over expected, and of how many it is."""
    if not logs:
        return UNKNOWN_SPREAD, 0
    missing = max(0, FEW - len(logs))
    squares = np.square([*logs, *[FEW_SPREAD] * missing])
    counted = [*weights, *[float(np.mean(weights))] * missing]
    return float(np.sqrt(np.average(squares, weights=counted))), len(squares)


def left_out(
    groups: Sequence[str], actual: Sequence[float], without: Callable[[str], float], weights: Sequence[float]
) -> tuple[float, int]:
    """The spread of what each group (a run, or a tenant) turned out to be, over what the others say of it: residuals of
    PRESS (Allen 1974), in which no run has a part that it is judged by."""
    if len(groups) < 2:
        return spread([0.0] * len(groups), weights)
    logs = [math.log(max(found, 1e-9) / max(without(group), 1e-9)) for group, found in zip(groups, actual, strict=True)]
    return spread(logs, weights)


def ranged(expected: float, deviation: float, count: int) -> Range:
    """The prediction interval of one more run: Student's t on logarithms, since times are off by factors."""
    if count < 2:
        factor = math.exp(deviation)
    else:
        quantile = float(student.ppf((1 + COVERAGE) / 2, count - 1))
        factor = math.exp(min(quantile * deviation * math.sqrt(1 + 1 / count), UNKNOWN_SPREAD * 2))
    return Range(expected / factor, expected, expected * factor)
