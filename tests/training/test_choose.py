from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from tasks.domain.use_case import Estimator, Metric
from tasks.metrics import metric_value, row_losses
from tasks.training.choose import choose

NAIVE, WIDE, LINEAR, LIGHTGBM = Estimator


def test_a_clear_winner_wins_and_a_tie_goes_to_the_simplest() -> None:
    rng = np.random.default_rng(0)
    losses = rng.uniform(1, 2, 200)
    assert choose({NAIVE: losses, LIGHTGBM: losses - 0.5}) is LIGHTGBM
    assert choose({NAIVE: losses, WIDE: losses - 0.5, LINEAR: losses - 0.5, LIGHTGBM: losses - 0.5}) is WIDE
    assert choose({LIGHTGBM: losses, NAIVE: losses}) is NAIVE


def test_differences_are_paired() -> None:
    """Rows differ by far more than estimators do, yet one is better on each of them."""
    rows = np.random.default_rng(0).exponential(100, 50)
    assert choose({NAIVE: rows, LINEAR: rows - 0.01}) is LINEAR


def test_noise_chooses_the_naive_rule() -> None:
    chosen = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        target = rng.normal(size=60)
        losses = {e: np.square(target - rng.normal(0, 0.2, 60)) for e in (LINEAR, LIGHTGBM)}
        chosen.append(choose({NAIVE: np.square(target), **losses}))
    assert chosen.count(NAIVE) > 180


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_missing_loss_never_wins(bad: float) -> None:
    good, broken = np.ones(10), np.zeros(10)
    broken[3] = bad
    assert choose({NAIVE: good, LIGHTGBM: broken}) is NAIVE
    assert choose({NAIVE: broken}) is NAIVE


def test_one_row_tells_nothing_apart() -> None:
    assert choose({NAIVE: np.array([9.0]), LIGHTGBM: np.array([0.0])}) is NAIVE
    assert choose({NAIVE: np.empty(0), LIGHTGBM: np.empty(0)}) is NAIVE


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 50).astype(float)
    positive = rng.uniform(0, 1, 50)
    both = np.column_stack([1 - positive, positive])
    for metric, expected in (
        (Metric.LOG_LOSS, log_loss(target, both)),
        (Metric.BRIER, brier_score_loss(target, positive)),
    ):
        losses = row_losses(metric, target, both)
        assert metric_value(metric, losses.sum(), 50) == pytest.approx(expected)
    errors = row_losses(Metric.RMSE, target, np.zeros((50, 1)))
    assert metric_value(Metric.RMSE, errors.sum(), 50) == pytest.approx(np.sqrt(target.mean()))
    assert np.isfinite(row_losses(Metric.LOG_LOSS, np.zeros(1), np.array([[0.0, 1.0]]))).all()
    assert np.isnan(metric_value(Metric.MAE, 0.0, 0))
