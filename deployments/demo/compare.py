"""How good the predictions were: Orchard, plain LightGBM and the naive rule on the same rows of November.

Nothing here chooses anything: it only looks, after the fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

MIN_ROWS = 40
"""Below so many rows of a partition, plain LightGBM is given the tenant's mean, and the rule the tenant's constant."""

FEATURES = ["departure_minute", "block_minutes", "distance", "dep_delay", "weekday"]


@dataclass(frozen=True)
class Comparison:
    """Errors over the same rows. `ratio` is Orchard's RMSE over the rule's; `interval` its paired 95 % interval."""

    rows: int
    orchard: float
    plain: float
    rule: float
    ratio: float
    interval: tuple[float, float]


def compare_arrivals(history: pd.DataFrame, arrivals: pd.DataFrame) -> pd.DataFrame:
    """One row per arrival of November with `tenant`, `orchard`, and squared errors `plain`, `rule`, `orchard_error`.

    `history` and `arrivals`: flights with an arrival delay; `arrivals` also has `prediction`, Orchard's.
    """
    history, arrivals = _featured(history), _featured(arrivals)
    keys = ["carrier", "origin", "dest"]
    history["gap"] = history["arr_delay"] - history["dep_delay"]
    by_partition = history.groupby(keys)["gap"].agg(["mean", "size"]).reset_index()
    joined = arrivals.merge(by_partition, on=keys, how="left")
    tenant_gap = joined["carrier"].map(history.groupby("carrier")["gap"].mean())
    enough = joined["size"].fillna(0) >= MIN_ROWS
    rule = joined["dep_delay"] + joined["mean"].where(enough, tenant_gap)
    plain = joined["carrier"].map(history.groupby("carrier")["arr_delay"].mean()).to_numpy(copy=True)
    groups = {key: rows for key, rows in history.groupby(keys) if len(rows) >= MIN_ROWS}
    places = {key: index.to_numpy() for key, index in joined.groupby(keys).groups.items() if key in groups}
    with ThreadPoolExecutor(2) as pool:
        for key, values in pool.map(lambda key: (key, _plain(groups[key], joined.loc[places[key]])), places):
            plain[places[key]] = values
    truth = joined["arr_delay"]
    return pd.DataFrame(
        {
            "tenant": joined["carrier"].str.lower(),
            "orchard_error": (truth - joined["prediction"]) ** 2,
            "plain_error": (truth - plain) ** 2,
            "rule_error": (truth - rule) ** 2,
        }
    )


def summarise(errors: pd.DataFrame) -> Comparison:
    """RMSEs of the rows, and the paired interval of the ratio by the delta method on the two mean squared errors."""
    ours, rule = errors["orchard_error"].to_numpy(), errors["rule_error"].to_numpy()
    ratio = float(np.sqrt(ours.mean() / rule.mean()))
    influence = ratio / 2 * (ours / ours.mean() - rule / rule.mean())
    half = 1.96 * float(influence.std(ddof=1) / np.sqrt(len(ours))) if len(ours) > 1 else float("nan")
    return Comparison(
        rows=len(ours),
        orchard=float(np.sqrt(ours.mean())),
        plain=float(np.sqrt(errors["plain_error"].mean())),
        rule=float(np.sqrt(rule.mean())),
        ratio=ratio,
        interval=(ratio - half, ratio + half),
    )


def classification_scores(truth: np.ndarray, probability: np.ndarray, base_rate: np.ndarray) -> dict[str, float]:
    """Pooled AUC and log loss of the predicted probabilities and of the base rates; `truth` is 0 or 1."""
    from sklearn.metrics import log_loss, roc_auc_score

    return {
        "auc": float(roc_auc_score(truth, probability)),
        "log_loss": float(log_loss(truth, probability)),
        "base_auc": float(roc_auc_score(truth, base_rate)),
        "base_log_loss": float(log_loss(truth, base_rate)),
    }


def _featured(flights: pd.DataFrame) -> pd.DataFrame:
    minutes = {
        name: flights[column] // 100 * 60 + flights[column] % 100
        for name, column in (("departure_minute", "sched_dep_time"), ("arrival_minute", "sched_arr_time"))
    }
    return flights.assign(
        departure_minute=minutes["departure_minute"],
        block_minutes=(minutes["arrival_minute"] - minutes["departure_minute"]) % 1440,
        weekday=pd.to_datetime(flights["time_hour"]).dt.weekday,
    )


def _plain(history: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """LightGBM with the library's defaults on the raw target, as one would write it in five minutes."""
    import lightgbm as lgb

    model = lgb.train(
        {"verbosity": -1, "num_threads": 1, "objective": "regression"},
        lgb.Dataset(history[FEATURES], history["arr_delay"]),
    )
    return np.asarray(model.predict(rows[FEATURES], num_threads=1))


def tenants_of(errors: pd.DataFrame, tenants: Sequence[str]) -> dict[str, Comparison | None]:
    """The same per tenant; None where no row of it could be compared."""
    groups = dict(list(errors.groupby("tenant")))
    return {tenant: summarise(groups[tenant]) if tenant in groups else None for tenant in tenants}
