"""Errors per row, and the metrics that they add up to; lower is better."""

from __future__ import annotations

import math

import numpy as np

from tasks.domain.use_case import Metric
from tasks.scorer import Floats

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


def row_losses(metric: Metric, target: Floats, predicted: Floats) -> Floats:
    """One loss per row.

    `target` holds numbers or class positions; `predicted` is (n, 1) numbers or (n, k) probabilities. The
    Brier score (1950) sums over classes; for two classes it is halved, as is usual.
    """
    if metric in {Metric.RMSE, Metric.MAE}:
        errors: Floats = target - predicted[:, 0]
        return np.square(errors) if metric is Metric.RMSE else np.abs(errors)
    rows, classes = np.arange(len(target)), target.astype(np.int64)
    if metric is Metric.LOG_LOSS:
        return -np.log(np.clip(predicted[rows, classes], SMALLEST_PROBABILITY, 1.0))
    misses = predicted.copy()
    misses[rows, classes] -= 1
    total: Floats = np.square(misses).sum(axis=1)
    return total / 2 if predicted.shape[1] == 2 else total


def metric_value(metric: Metric, loss_sum: float, rows: int) -> float:
    """The metric over `rows` rows whose losses add up to `loss_sum`; missing where there are none."""
    if rows == 0:
        return math.nan
    mean = loss_sum / rows
    return math.sqrt(mean) if metric is Metric.RMSE else mean
