from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.scorer import BUNDLE_SCHEMA
from tasks.training.rows import labelled_rows
from tasks.training.split import split
from tasks.training.tenant_wide import TenantWideModel, fit_tenant_wide, quotas, sample_bucket
from tests.training.frames import churn, customers, demand, sales, tenant_wide_of


def test_no_validation_or_holdout_row_reaches_the_judging_fit() -> None:
    frame, use_case = sales(4, 50), demand()
    sample = sample_bucket(frame, use_case, 90)
    assert len(sample) == 90
    rows, parts = labelled_rows(frame, use_case)
    allowed: set[int] = set()
    for part in parts.values():
        cut = split(50, 0.2, 0.2, rows.part(part).times)
        allowed |= set(rows.positions[part][: cut.validation])
    assert set(sample.index[sample["_training"]]) == set(sample.index) & allowed

    leaky = frame.copy()
    leaky.loc[~leaky.index.isin(list(allowed)), "sales"] += 1000.0
    assert tenant_wide_of(frame, use_case).bundle_rows()[1] == tenant_wide_of(leaky, use_case).bundle_rows()[1]


def test_a_sample_is_stable_when_rows_arrive_or_change_places() -> None:
    use_case = demand()
    frame = sales(4, 50)
    sample = sample_bucket(frame, use_case, 40)
    shuffled = sample_bucket(frame.sample(frac=1, random_state=1), use_case, 40)
    pd.testing.assert_frame_equal(sample, shuffled)
    more = sample_bucket(sales(5, 50), use_case, 50)
    keys = set(zip(sample["store"], sample["day"], strict=True))
    kept = keys & set(zip(more["store"], more["day"], strict=True))
    assert len(kept) >= 30


def test_the_order_of_buckets_does_not_matter_and_it_survives_storage() -> None:
    for use_case, frame, key in ((demand(), sales(4, 50), "store"), (churn(), customers(), "region")):
        samples = [sample_bucket(part, use_case, 1000) for _, part in frame.groupby(key)]
        fits = [
            fit_tenant_wide(order, use_case, labelled_rows_now=9, run_id=3, clock=lambda: 0.0)
            for order in (samples, samples[::-1])
        ]
        assert fits[0].bundle_rows() == fits[1].bundle_rows()
        stored = pa.Table.from_pylist(fits[0].bundle_rows(), schema=BUNDLE_SCHEMA).to_pylist()
        restored = TenantWideModel.from_bundle_rows(stored)
        features = labelled_rows(frame, use_case, keys=True)[0].features
        for there, here in ((fits[0].serving, restored.serving), (fits[0].judging, restored.judging)):
            assert np.array_equal(there.predict(features, restored.naive), here.predict(features, restored.naive))
        assert (restored.labelled_rows, restored.source_run) == (9, 3)


def test_too_little_to_learn_from_gives_the_naive_rule() -> None:
    use_case = churn()
    one_class = customers().assign(state="leaves")
    nothing = customers().assign(state=None)
    for frame in (one_class, nothing, nothing.iloc[:0]):
        model = tenant_wide_of(frame, use_case)
        assert model.serving.estimator == "naive"
        assert sum(model.naive) == 1.0
        assert min(model.naive) > 0


def test_buckets_give_in_proportion() -> None:
    partitions = pd.DataFrame({"bucket": [0, 0, 3, 5], "labelled": [100, 200, 100, 0]})
    assert quotas(partitions, 100) == {0: 75, 3: 25}
    assert quotas(partitions, 10_000) == {0: 300, 3: 100}
    assert quotas(partitions.iloc[:0], 100) == {}


def test_of_a_large_table_only_some_buckets_are_read() -> None:
    partitions = pd.DataFrame({"bucket": range(100), "labelled": 1_000})
    assert quotas(partitions, 500) == {0: 250, 1: 250}


def test_growth_makes_it_due() -> None:
    model = tenant_wide_of(sales(2, 50), demand())
    assert model.labelled_rows == 100
    assert not model.is_due(110, 0.1)
    assert model.is_due(111, 0.1)
