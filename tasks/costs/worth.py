"""Whether a partition's own model is worth what it costs."""

from __future__ import annotations

from decimal import Decimal

import pandas as pd

from tasks.domain.prices import Prices

OWN = ("lightgbm", "linear")
COPIES = 2
"""A model is kept in the bundle that it was trained for, and in the release that it serves from."""

WORTH = ("partition", "estimator", "rows", "metric", "tenant_wide_metric", "gain", "trainings", "cost", "earns")


def worth(models: pd.DataFrame, costs: Prices, min_gain: float) -> pd.DataFrame:
    """One row per partition that a model of its own was chosen for, what does not earn it first: columns `WORTH`.

    `models` has the latest `PARTITION_MODEL` of each partition, and over the last thirty days `trainings` and
    `training_s`, how often and how many seconds it was trained. `gain` is the share of the tenant-wide model's error
    that the own model avoids on the holdout; missing where the two were not compared. `cost` is what thirty days of its
    training and of its storage come to, `earns` whether the gain is at least `min_gain`.
    """
    own = models[models["estimator"].isin(OWN)].copy()
    compared = own["tenant_wide_metric"].where(own["tenant_wide_metric"] > 0)
    own["gain"] = 1 - own["metric"] / compared
    own["earns"] = ~(own["gain"] < min_gain)
    sizes = own["model_bytes"].fillna(0)
    cost = [costs.price(seconds, COPIES * size / 1e9) for seconds, size in zip(own["training_s"], sizes, strict=True)]
    own["cost"] = pd.Series(cost, index=own.index, dtype=object)
    ordered = own.sort_values(["earns", "gain", "partition"], na_position="last", ignore_index=True)
    return ordered[list(WORTH)]


def saved(rows: pd.DataFrame) -> Decimal:
    """What the models that do not earn their cost come to."""
    return sum(rows.loc[~rows["earns"], "cost"], Decimal(0))
