"""One partition: fit candidates, choose on validation, judge on the holdout, refit for serving."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.domain.outcome import PartitionOutcome
from tasks.domain.use_case import Estimator, Metric, UseCase
from tasks.metrics import metric_value, row_losses
from tasks.scorer import Features, Floats, Model
from tasks.training.choose import choose
from tasks.training.estimators import Clock, NotFittable, fit_lightgbm, fit_linear, naive_rule
from tasks.training.rows import Rows
from tasks.training.split import split
from tasks.training.tenant_wide import TenantWideModel

SHOWN_ROWS = 100


@dataclass(frozen=True)
class Trained:
    """What became of a partition; `model` is its row for the bundle, None where it has none.

    `metric` and `naive_metric` are on the holdout, `holdout_sum` and `naive_sum` the losses that they are made of,
    `tenant_wide_metric` is the tenant-wide model's. They judge the model before its refit, and the naive rule as the
    training rows give it. `new_*` are the same for the candidate and for what serves now, on holdout rows that are new
    since. `shown` are the first few holdout rows for a plot: what was true, and what the chosen model had said (of a
    class: 1 or 0, and its probability; it is the last class).
    """

    outcome: PartitionOutcome
    rows: int
    data_hash: str
    estimator: Estimator | None = None
    metric: float = math.nan
    naive_metric: float = math.nan
    holdout_rows: int = 0
    holdout_sum: float = math.nan
    naive_sum: float = math.nan
    new_rows: int = 0
    new_metric: float = math.nan
    new_champion_metric: float = math.nan
    tenant_wide_metric: float = math.nan
    reason: str = ""
    model: dict[str, Any] | None = None
    shown: tuple[tuple[float, float], ...] = ()


def train_partition(
    rows: Rows,
    use_case: UseCase,
    name: str,
    tenant_wide: TenantWideModel | None,
    *,
    run_id: int,
    clock: Clock,
    seed: int = 0,
    champion: Floats | None = None,
) -> Trained:
    """Trains on one partition's labelled rows, which are in the order (time, row key).

    Too few rows are an outcome, `rejected`. `champion` are the losses of what serves now,
    NaN on rows that it may have seen. Raises `FitGivenUp` after `training.timeout_s`.
    """
    options, metric, data_hash = use_case.training, use_case.metric, rows.data_hash()
    if len(rows) < options.min_rows:
        return Trained(
            PartitionOutcome.REJECTED,
            len(rows),
            data_hash,
            reason=f"fewer than {options.min_rows} labelled rows",
        )
    deadline = clock() + options.timeout_s
    cut = split(len(rows), options.validation, options.holdout, rows.times, rows.key_hashes)
    training, unseen = slice(0, cut.validation), slice(cut.validation, len(rows))
    naive = naive_rule(rows.target[training], len(use_case.classes))
    models = {Estimator.NAIVE: (Model("naive", {}, None), naive)}
    if tenant_wide is not None and Estimator.TENANT_WIDE in use_case.estimators:
        models[Estimator.TENANT_WIDE] = (tenant_wide.judging, tenant_wide.judging_naive)
    for estimator in use_case.estimators:
        fitted = _fit(estimator, rows, training, use_case, deadline, clock, seed)
        if fitted is not None:
            models[estimator] = (fitted, naive)
    predicted = {
        estimator: model.predict(rows.features.rows(unseen), its_naive)
        for estimator, (model, its_naive) in models.items()
    }
    losses = {estimator: row_losses(metric, rows.target[unseen], values) for estimator, values in predicted.items()}
    validation_rows = cut.holdout - cut.validation
    winner = choose({estimator: values[:validation_rows] for estimator, values in losses.items()})
    serving: Model | None = models[winner][0]
    if options.refit:
        naive = naive_rule(rows.target, len(use_case.classes))
        serving = _fit(winner, rows, slice(0, len(rows)), use_case, deadline, clock, seed) or serving
    holdout_sum = _sum(losses[winner][validation_rows:])
    naive_sum = _sum(losses[Estimator.NAIVE][validation_rows:])
    holdout_rows = len(rows) - cut.holdout
    trained = Trained(
        PartitionOutcome.TRAINED,
        len(rows),
        data_hash,
        winner,
        metric_value(metric, holdout_sum, holdout_rows),
        metric_value(metric, naive_sum, holdout_rows),
        holdout_rows,
        holdout_sum,
        naive_sum,
    )
    if Estimator.TENANT_WIDE in losses:
        its_sum = _sum(losses[Estimator.TENANT_WIDE][validation_rows:])
        trained = replace(trained, tenant_wide_metric=metric_value(metric, its_sum, holdout_rows))
    actual = rows.target[cut.holdout : cut.holdout + SHOWN_ROWS]
    shown = predicted[winner][validation_rows : validation_rows + SHOWN_ROWS, -1]
    if use_case.classes:
        actual = (actual == len(use_case.classes) - 1).astype(np.float64)
    trained = replace(
        trained,
        model=model_row(name, winner, serving, naive, trained, run_id),
        shown=tuple(zip(actual.tolist(), shown.tolist(), strict=True)),
    )
    if champion is None:
        return trained
    return _compared(trained, metric, losses[winner][validation_rows:], champion[cut.holdout :])


def _compared(trained: Trained, metric: Metric, candidate: Floats, champion: Floats) -> Trained:
    """Adds the errors of both on the holdout rows that neither has seen."""
    new = np.isfinite(champion)
    rows = int(new.sum())
    return replace(
        trained,
        new_rows=rows,
        new_metric=metric_value(metric, _sum(candidate[new]), rows),
        new_champion_metric=metric_value(metric, _sum(champion[new]), rows),
    )


def model_row(
    name: str, winner: Estimator, model: Model | None, naive: Sequence[float], trained: Trained, run_id: int
) -> dict[str, Any]:
    """A row of `tasks.scorer.BUNDLE_SCHEMA`; only LightGBM has bytes, only it and linear have a spec."""
    own = winner in {Estimator.LINEAR, Estimator.LIGHTGBM} and model is not None
    return {
        "partition": name,
        "estimator": winner.value,
        "spec": json.dumps(model.spec) if own and model is not None else "{}",
        "model": model.text() if own and model is not None else None,
        "naive": list(naive),
        "rows": trained.rows,
        "metric": trained.metric,
        "naive_metric": trained.naive_metric,
        "data_hash": trained.data_hash,
        "source_run": run_id,
    }


def _fit(
    estimator: Estimator,
    rows: Rows,
    part: slice,
    use_case: UseCase,
    deadline: float,
    clock: Clock,
    seed: int,
) -> Model | None:
    """A model of the partition's own; None where the estimator has none or the rows cannot teach it."""
    features: Features = rows.features.rows(part).only(use_case.features.categorical)
    target, options, metric = rows.target[part], use_case.training, use_case.metric
    try:
        if estimator is Estimator.LIGHTGBM:
            return fit_lightgbm(features, target, options.lightgbm, metric, deadline=deadline, clock=clock, seed=seed)
        if estimator is Estimator.LINEAR:
            return fit_linear(features, target, metric, options.ridge_alpha)
    except NotFittable:
        return None
    return None


def _sum(losses: Floats) -> float:
    return float(losses.sum())
