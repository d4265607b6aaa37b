"""Fitting. Every estimator gives a `tasks.scorer.Model`, whose prediction is the one that serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tasks.domain.errors import Permanent
from tasks.domain.use_case import LightGBMOptions, Metric
from tasks.scorer import Features, Floats, Integers, Model

Clock = Callable[[], float]

OBJECTIVES = {Metric.RMSE: "regression", Metric.MAE: "regression_l1"}
MAX_CATEGORIES = 200
"""Categories of one column that a linear model gets a coefficient for: the most frequent."""


class NotFittable(Permanent):
    """These rows cannot teach this estimator anything, so it is no candidate; the others are."""


class FitGivenUp(Permanent):
    """The fit took longer than the use case allows a partition."""


def naive_rule(target: Floats, classes: int) -> list[float]:
    """The mean of what models fit, as a list of one; or base rates, add-one smoothed (Laplace)."""
    if classes:
        counts = np.bincount(target.astype(np.int64), minlength=classes)
        return [float(count + 1) / (len(target) + classes) for count in counts]
    return [float(target.mean())] if len(target) else [0.0]


def fit_lightgbm(
    features: Features,
    target: Floats,
    options: LightGBMOptions,
    metric: Metric,
    *,
    deadline: float = math.inf,
    clock: Clock,
    seed: int = 0,
) -> Model:
    """Gradient boosting on one thread; the same rows and options give the same bytes.

    Raises `NotFittable` when there are too few rows for a single cut or only one class, `FitGivenUp` when
    `clock` passes `deadline`.
    """
    import lightgbm

    if len(target) < 2 * options.min_data_in_leaf:
        raise NotFittable(
            "too few rows for one cut", expected=f"{2 * options.min_data_in_leaf}", found=f"{len(target)}"
        )
    spec: dict[str, Any] = {"categories": {name: _categories(features, name) for name in features.codes}}
    params: dict[str, Any] = {
        **options.model_dump(exclude={"num_iterations"}),
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": seed,
        "verbosity": -1,
    }
    if metric in OBJECTIVES:
        params["objective"] = OBJECTIVES[metric]
    else:
        target, spec["present"] = _present(target)
        many = len(spec["present"]) > 2
        params |= {"objective": "multiclass", "num_class": len(spec["present"])} if many else {"objective": "binary"}

    def give_up(state: Any) -> None:
        if clock() > deadline:
            raise FitGivenUp("LightGBM took longer than training.timeout_s", found=f"iteration {state.iteration}")

    numeric = features.numeric.shape[1]
    data = lightgbm.Dataset(
        features.matrix(spec["categories"]),
        target,
        categorical_feature=list(range(numeric, numeric + len(spec["categories"]))),
        params=params,
    )
    booster = lightgbm.train(params, data, options.num_iterations, callbacks=[give_up], keep_training_booster=True)
    return Model("lightgbm", spec, booster)


def fit_linear(features: Features, target: Floats, metric: Metric, alpha: float) -> Model:
    """Ridge or logistic regression on numbers (median for missing, scaled) and one-hot categories.

    Missing and unknown categories have no effect. Raises `NotFittable` when there is only one class.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    _one_thread_for_linear_algebra()
    spec: dict[str, Any] = {
        "categories": {name: _categories(features, name, MAX_CATEGORIES) for name in features.codes}
    }
    numbers = features.numeric
    seen = ~np.isnan(numbers)
    fill = [
        float(np.median(column[known])) if known.any() else 0.0 for column, known in zip(numbers.T, seen.T, strict=True)
    ]
    numbers = np.where(seen, numbers, fill)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = numbers.mean(axis=0), numbers.std(axis=0)
    usable = np.isfinite(mean) & np.isfinite(scale) & (scale > 1e-12 * np.maximum(1, np.abs(mean)))
    mean, scale = np.where(usable, mean, 0.0), np.where(usable, scale, 1.0)
    blocks = [np.where(usable, np.clip((numbers - mean) / scale, -1e6, 1e6), 0.0)]
    for name, categories in spec["categories"].items():
        blocks.append((features.positions(name, categories)[:, None] == np.arange(len(categories))).astype(float))
    design = np.hstack(blocks)
    if metric in OBJECTIVES:
        fitted = Ridge(alpha=alpha, solver="svd").fit(design, target)
    else:
        target, spec["present"] = _present(target)
        strength = 1 / max(alpha, 1e-6)
        fitted = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=100).fit(design, target)
    coefficients = np.atleast_2d(fitted.coef_)
    coefficients[:, : len(usable)][:, ~usable] = 0.0
    return Model(
        "linear",
        spec
        | {
            "fill": _rounded(np.asarray(fill)),
            "mean": _rounded(mean),
            "scale": _rounded(scale),
            "coefficients": [_rounded(row) for row in coefficients],
            "intercepts": _rounded(np.atleast_1d(fitted.intercept_)),
        },
        None,
    )


@cache
def _one_thread_for_linear_algebra() -> None:
    """For this process, once its libraries are loaded. Partitions are the parallelism: a library that starts threads of
    its own for each of many small fits took 40 % more CPU time, and its sums depend on how many they are."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(1, user_api="blas")


def _present(target: Floats) -> tuple[Floats, list[int]]:
    """Class positions renumbered without gaps, and the positions that occur."""
    present, renumbered = np.unique(target.astype(np.int64), return_inverse=True)
    if len(present) < 2:
        raise NotFittable("only one class", expected="at least two classes", found=f"{len(present)}")
    return renumbered.astype(np.float64), present.tolist()


def _categories(features: Features, column: str, most: int | None = None) -> list[str]:
    """The values that occur in these rows, in alphabetical order; the `most` frequent if there are more."""
    codes: Integers = features.codes[column]
    counts = np.bincount(codes[codes >= 0], minlength=len(features.texts[column]))
    found = [(features.texts[column][code], int(counts[code])) for code in np.flatnonzero(counts)]
    if most is not None and len(found) > most:
        found = sorted(found, key=lambda item: (-item[1], item[0]))[:most]
    return sorted(text for text, _ in found)


def _rounded(values: Sequence[float] | Floats) -> list[float]:
    """Twelve digits: beyond them, linear algebra libraries differ with the number of their threads."""
    return [float(f"{value:.12g}") for value in values]
