"""Which estimator serves a partition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.domain.use_case import Estimator
from tasks.scorer import Floats


def choose(losses: Mapping[Estimator, Floats]) -> Estimator:
    """The simplest estimator that is within one standard error of the best (Breiman et al. 1984).

    `losses` are losses on the same validation rows; the order of `Estimator` is the order of simplicity.
    The standard error is that of the paired differences to the best, because rows that are hard for one are
    hard for all. With fewer than two rows nothing can be told apart, and the simplest is chosen. An
    estimator with a missing loss is out.
    """
    admitted = {estimator: losses[estimator] for estimator in Estimator if estimator in losses}
    admitted = {estimator: rows for estimator, rows in admitted.items() if np.isfinite(rows).all()}
    if not admitted:
        return Estimator.NAIVE
    best = min(admitted, key=lambda estimator: float(admitted[estimator].mean() if len(admitted[estimator]) else 0))
    for estimator, rows in admitted.items():
        if len(rows) < 2:
            return estimator
        difference = rows - admitted[best]
        if difference.mean() <= difference.std(ddof=1) / np.sqrt(len(rows)):
            return estimator
    return best
