"""The one model over all partitions: a candidate in each of them, and the answer where there is no other.

It is fitted twice on the same sample. The judging fit sees only rows that are training rows of their own
partition, so that it can be compared with the partition's candidates on rows that neither has seen; the
serving fit sees all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.use_case import UseCase
from tasks.scorer import TENANT_WIDE, Model, load_booster
from tasks.training.estimators import Clock, NotFittable, fit_lightgbm, naive_rule
from tasks.training.rows import Rows, labelled_rows
from tasks.training.split import split

READ_AHEAD = 4
"""So many times the sample's rows are read at most: a partition's split needs all of its rows."""

JUDGING = "*judging"
"""Partition name under which the judging fit is stored; no real one looks like it: those have an `=`."""


@dataclass(frozen=True)
class TenantWideModel:
    """The two fits with the naive rule of the rows that each saw.

    `labelled_rows` is how many labelled rows the use case had then: growth since decides when it is refitted.
    """

    judging: Model
    judging_naive: list[float]
    serving: Model
    naive: list[float]
    labelled_rows: int
    source_run: int

    def is_due(self, labelled_rows: int, refresh_growth: float) -> bool:
        """Whether the use case has grown or shrunk so much that the model is to be fitted again."""
        return is_due(labelled_rows, self.labelled_rows, refresh_growth)

    def bundle_rows(self) -> list[dict[str, Any]]:
        """Two rows of `BUNDLE_SCHEMA`: the serving fit under `*`, for bundles, and the judging fit."""
        fits = ((TENANT_WIDE, self.serving, self.naive), (JUDGING, self.judging, self.judging_naive))
        return [
            {
                "partition": name,
                "estimator": model.estimator,
                "spec": json.dumps(model.spec),
                "model": model.text(),
                "naive": naive,
                "rows": self.labelled_rows,
                "metric": math.nan,
                "naive_metric": math.nan,
                "data_hash": "",
                "source_run": self.source_run,
            }
            for name, model, naive in fits
        ]

    @classmethod
    def from_bundle_rows(cls, rows: Sequence[Mapping[str, Any]]) -> TenantWideModel:
        """The inverse of `bundle_rows`."""
        by_name = {row["partition"]: row for row in rows}
        serving, judging = by_name[TENANT_WIDE], by_name[JUDGING]
        return cls(
            _model(judging),
            list(judging["naive"]),
            _model(serving),
            list(serving["naive"]),
            serving["rows"],
            serving["source_run"],
        )


def is_due(labelled_rows: int, fitted_at: int, refresh_growth: float) -> bool:
    """Whether a model that was fitted when there were `fitted_at` labelled rows is to be fitted again."""
    return abs(labelled_rows - fitted_at) > refresh_growth * fitted_at


def quotas(partitions: pd.DataFrame, max_rows: int) -> dict[int, int]:
    """How many rows each bucket gives to the sample, in proportion to its labelled rows.

    `partitions` has one row per partition: `bucket`, `labelled`. Buckets hold partitions by hash, so some of them are a
    fair sample of all: of a large table only as many are read as hold `READ_AHEAD` times the rows wanted.
    """
    labelled = partitions.groupby("bucket")["labelled"].sum().sort_index()
    labelled = labelled[labelled > 0]
    enough = labelled.cumsum().shift(fill_value=0) < READ_AHEAD * max_rows
    labelled = labelled[enough]
    share = min(1.0, max_rows / max(1, int(labelled.sum())))
    return {int(str(bucket)): max(1, round(rows * share)) for bucket, rows in labelled.items()}


def sample_bucket(frame: pd.DataFrame, use_case: UseCase, quota: int) -> pd.DataFrame:
    """At most `quota` labelled rows of one bucket, each with `_training`: whether the judging fit may see it.

    The choice hangs on the row keys alone, so it stays the same when other rows come. All of a partition's
    rows must be in `frame`. Partitions with too few rows to be trained have no holdout, and all of their
    rows are training rows. Rows come in the order of their keys' hashes.
    """
    rows, partitions = labelled_rows(frame, use_case)
    training = np.ones(len(rows), dtype=np.bool_)
    options = use_case.training
    for part in partitions.values():
        count = part.stop - part.start
        if count >= options.min_rows:
            times = None if rows.times is None else rows.times[part]
            cut = split(count, options.validation, options.holdout, times, rows.key_hashes[part])
            training[part.start + cut.validation : part.stop] = False
    chosen = np.argsort(rows.key_hashes, kind="stable")[:quota]
    return frame.iloc[rows.positions[chosen]].assign(_training=training[chosen])


def fit_tenant_wide(
    samples: Sequence[pd.DataFrame],
    use_case: UseCase,
    *,
    labelled_rows_now: int,
    run_id: int,
    clock: Clock,
    seed: int = 0,
) -> TenantWideModel:
    """Fits both models on the samples of all buckets, in whatever order they come.

    The columns of `partition_by` are categorical features. Rows that cannot teach LightGBM anything (too
    few, one class) give the naive rule.
    """
    filled = [sample for sample in samples if len(sample)]
    frame = pd.concat(filled, ignore_index=True) if filled else None
    if frame is None:
        naive = naive_rule(np.empty(0), len(use_case.classes))
        nothing = Model("naive", {}, None)
        return TenantWideModel(nothing, naive, nothing, naive, labelled_rows_now, run_id)
    rows, _ = labelled_rows(frame, use_case, keys=True)
    training = np.flatnonzero(frame["_training"].to_numpy(dtype=np.bool_)[rows.positions])
    judging_rows = Rows(
        rows.features.rows(training),
        rows.target[training],
        None,
        rows.key_hashes[training],
        rows.content_hashes[training],
        rows.positions[training],
    )
    with ThreadPoolExecutor(2) as pool:
        fits = pool.map(lambda which: _fit(which, use_case, clock, seed), (judging_rows, rows))
        (judging, judging_naive), (serving, naive) = fits
    return TenantWideModel(judging, judging_naive, serving, naive, labelled_rows_now, run_id)


def _fit(rows: Rows, use_case: UseCase, clock: Clock, seed: int) -> tuple[Model, list[float]]:
    naive = naive_rule(rows.target, len(use_case.classes))
    options = use_case.training.tenant_wide.lightgbm
    try:
        return fit_lightgbm(rows.features, rows.target, options, use_case.metric, clock=clock, seed=seed), naive
    except NotFittable:
        return Model("naive", {}, None), naive


def _model(row: Mapping[str, Any]) -> Model:
    booster = None if row["model"] is None else load_booster(row["model"])
    return Model(row["estimator"], json.loads(row["spec"]), booster)
