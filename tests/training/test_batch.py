from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.domain.use_case import UseCase
from tasks.ports import PARTITION_MODEL
from tasks.scorer import Scorer
from tasks.training.batch import BatchResult, train_batch
from tasks.training.champion import Champion
from tests.training.frames import churn, customers, demand, sales, tenant_wide_of, whole_batch, write_bundle


def train(frame: pd.DataFrame, use_case: UseCase, **options: Any) -> BatchResult:
    wide = tenant_wide_of(frame, use_case)
    return train_batch(frame, whole_batch(frame, use_case), use_case, wide, clock=lambda: 0.0, **options)


def test_every_partition_is_trained_and_beats_the_naive_rule() -> None:
    for use_case, frame in ((demand(), sales()), (churn(), customers(600))):
        result = train(frame, use_case)
        rows = result.rows
        assert tuple(rows.columns) == PARTITION_MODEL
        assert set(rows["outcome"]) == {"trained"}
        assert (rows["metric"] < rows["naive_metric"]).all()
        assert rows["rows"].sum() == len(frame)
        assert [model["partition"] for model in result.models] == sorted(rows["partition"])


def test_the_same_rows_in_any_order_give_the_same_bytes() -> None:
    for use_case, frame in (
        (demand(estimators=["lightgbm"]), sales()),
        (demand(estimators=["linear"]), sales()),
        (churn(), customers(600)),
    ):
        once = train(frame, use_case)
        again = train(frame.sample(frac=1, random_state=3), use_case)
        assert once.models == again.models
        pd.testing.assert_frame_equal(once.rows, again.rows)


def test_a_partition_does_not_hang_on_its_neighbours() -> None:
    frame, use_case = sales(4), demand(estimators=["lightgbm"])
    together = train_batch(frame, whole_batch(frame, use_case), use_case, None)
    alone = frame[frame["store"] == 2]
    single = train_batch(alone, whole_batch(alone, use_case), use_case, None)
    assert single.models == together.models[2:3]


def test_refit_moves_the_model_but_not_its_judgement() -> None:
    frame = sales(1)
    training = {"min_rows": 10, "refit": False}
    with_refit, without = (
        train(frame, demand()),
        train(frame, demand(training=training | {"lightgbm": {"num_iterations": 10}})),
    )
    assert with_refit.rows["metric"].tolist() == without.rows["metric"].tolist()
    assert with_refit.models[0]["spec"] != without.models[0]["spec"]


def test_pure_noise_is_left_to_the_naive_rule() -> None:
    frame = sales(20, 100)
    rng = np.random.default_rng(1)
    frame["sales"] = frame["last_week"] + rng.normal(0, 1, len(frame))
    assert (train(frame, demand()).rows["estimator"] == "naive").sum() >= 15


def test_unchanged_rows_are_reused_and_changed_ones_are_not() -> None:
    frame, use_case = sales(), demand()
    first = train(frame, use_case)
    frame.loc[frame["store"] == 1, "sales"] += 1.0
    second = train(frame, use_case, previous=first.rows)
    assert second.rows["outcome"].tolist() == ["reused", "trained", "reused"]
    assert [model["partition"] for model in second.models] == ["store=1"]
    third = train(frame, use_case, previous=second.rows)
    assert set(third.rows["outcome"]) == {"reused"}
    assert third.rows["metric"].tolist() == second.rows["metric"].tolist()


def test_one_failing_partition_fails_alone() -> None:
    """A clock that jumps while the second partition is fitted stands for a fit that takes too long."""
    frame, use_case = sales(), demand(estimators=["lightgbm"], training={"timeout_s": 30.0})
    # per partition: start, deadline, two fits of 100 iterations, end; the jump falls into the second one
    steps = itertools.chain([0.0] * 250, [100.0] * 5000)
    result = train_batch(frame, whole_batch(frame, use_case), use_case, None, clock=lambda: next(steps))
    assert result.rows["outcome"].tolist() == ["trained", "failed", "trained"]
    assert "timeout_s" in result.rows["reason"][1]
    again = train_batch(frame, whole_batch(frame, use_case), use_case, None, result.rows)
    assert again.rows["outcome"].tolist() == ["reused", "trained", "reused"]


def test_too_few_rows_are_rejected() -> None:
    frame, use_case = sales(2, 9), demand()
    batch = whole_batch(frame, use_case).model_copy(update={"partitions": ("store=0", "store=99")})
    result = train_batch(frame, batch, use_case, None)
    assert result.rows["outcome"].tolist() == ["rejected", "rejected"]
    assert result.rows["rows"].tolist() == [9, 0]
    assert result.models == []


odd_numbers = st.sampled_from([0.0, 1.0, -1e300, 1e300, np.inf, -np.inf, np.nan, 5e-324])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(10, 60), st.sampled_from(["demand", "churn"]))
def test_odd_rows_never_fail(data: st.DataObject, rows: int, which: str) -> None:
    use_case = demand() if which == "demand" else churn()
    frame = sales(1, rows) if which == "demand" else customers(rows).assign(region="north")
    number = "price" if which == "demand" else "age"
    category = "promo" if which == "demand" else "plan"
    if data.draw(st.booleans()):
        frame[number] = data.draw(st.lists(odd_numbers, min_size=rows, max_size=rows))
    if data.draw(st.booleans()):
        frame[category] = data.draw(st.sampled_from([None, "one", "%=,*"]))
    if data.draw(st.booleans()):
        frame[use_case.target] = 3.0 if which == "demand" else "leaves"
    result = train(frame, use_case)
    assert result.rows["outcome"].tolist() == ["trained"], result.rows["reason"].tolist()
    assert np.isfinite(result.rows["metric"]).all()


def test_candidate_and_champion_meet_on_rows_new_to_both(tmp_path: Path) -> None:
    frame, use_case = sales(2), demand()
    frame["_labelled"] = np.where(frame["day"] < frame["day"].quantile(0.9), 1, 2)
    first = train(frame[frame["_labelled"] == 1], use_case)
    bundle = write_bundle(tmp_path / "bundle", use_case, first.models, None, [0.0])
    champion = Champion(Scorer.open(bundle), upload_seq=1)
    rows = train(frame, use_case, champion=champion).rows
    assert rows["new_rows"].tolist() == [12, 12]
    fresh = frame[(frame["_labelled"] == 2) & (frame["store"] == 0)]
    errors = champion.scorer.predict(fresh)["prediction"] - fresh["sales"]
    assert rows["new_champion_metric"][0] == pytest.approx(np.sqrt(np.square(errors).mean()))
    assert np.isfinite(rows["new_metric"]).all()


def test_a_candidate_that_is_reused_keeps_its_comparison(tmp_path: Path) -> None:
    """Else one that was held on new rows is promoted on recorded errors, when rows to score touch its partition."""
    frame, use_case = sales(2), demand()
    frame["_labelled"] = np.where(frame["day"] < frame["day"].quantile(0.9), 1, 2)
    first = train(frame[frame["_labelled"] == 1], use_case)
    champion = Champion(
        Scorer.open(write_bundle(tmp_path / "bundle", use_case, first.models, None, [0.0])), upload_seq=1
    )
    second = train(frame, use_case, champion=champion).rows
    third = train(frame, use_case, previous=second, champion=champion).rows
    assert third["outcome"].tolist() == ["reused", "reused"]
    compared = ["new_rows", "new_metric", "new_champion_metric"]
    pd.testing.assert_frame_equal(third[compared], second[compared])
