"""What each feature contributes to a prediction.

LightGBM's own contributions (Lundberg et al. 2020, TreeSHAP): they and `bias` add up to the raw score, which is the
prediction for regression (less the baseline, where there is one) and the log-odds for classes. A linear model's are its
terms. Of several classes, each feature has one contribution per class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.scorer import Features, Floats, Model

BIAS = "bias"


def contributions(
    model: Model, features: Features, numeric: Sequence[str], classes: Sequence[str]
) -> list[Mapping[str, Any]]:
    """One mapping per row: feature → contribution, and `bias`; of several classes, feature → {class: contribution}.

    For two classes, contributions are to the log-odds of the second.
    """
    names = [*numeric, *model.spec.get("categories", {})]
    if model.estimator == "lightgbm":
        matrix = features.matrix(model.spec["categories"])
        raw = np.asarray(model.booster.predict(matrix, pred_contrib=True, num_threads=1, validate_features=False))
        outputs = raw.reshape(len(matrix), -1, len(names) + 1)
    else:
        outputs = _linear(model.spec, features)
    labels = _labels(model, classes, outputs.shape[1])
    return [_named(row, [*names, BIAS], labels) for row in outputs]


def _linear(spec: Mapping[str, Any], features: Features) -> Floats:
    """(n, outputs, features + 1): the terms of a linear model, the intercept last."""
    numbers = np.where(np.isnan(features.numeric), spec["fill"], features.numeric)
    numbers = np.clip((numbers - spec["mean"]) / spec["scale"], -1e6, 1e6)
    coefficients = np.asarray(spec["coefficients"], dtype=np.float64)
    terms = [numbers[:, None, :] * coefficients[None, :, : numbers.shape[1]]]
    offset = numbers.shape[1]
    for name, categories in spec["categories"].items():
        effects = np.vstack([coefficients[:, offset : offset + len(categories)].T, np.zeros(len(coefficients))])
        terms.append(effects[features.positions(name, categories)][:, :, None])
        offset += len(categories)
    intercepts = np.broadcast_to(np.asarray(spec["intercepts"], dtype=np.float64), (len(numbers), len(coefficients)))
    return np.concatenate([*terms, intercepts[:, :, None]], axis=2)


def _labels(model: Model, classes: Sequence[str], outputs: int) -> list[str] | None:
    """The classes that outputs are for; None where there is one."""
    if outputs == 1:
        return None
    return [classes[place] for place in model.spec["present"]]


def _named(row: Floats, names: Sequence[str], labels: Sequence[str] | None) -> dict[str, Any]:
    if labels is None:
        return dict(zip(names, row[0].tolist(), strict=True))
    return {name: dict(zip(labels, row[:, place].tolist(), strict=True)) for place, name in enumerate(names)}
