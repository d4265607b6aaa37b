"""The gate: each of its rules, and the law that a missing metric never promotes."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.outcome import Hold, Promote, Verdict
from tasks.domain.use_case import Estimator, Gate, Metric
from tasks.ports import PARTITION_MODEL, VERDICT
from tasks.promotion.gate import Candidate, Champion, Comparison, judge, judge_all

GATE = Gate(max_error=20, min_gain=0.02, max_regression=0.05, min_holdout_rows=10)
LIGHTGBM, NAIVE = Estimator.LIGHTGBM, Estimator.NAIVE


def candidate(
    metric: float | None = 14.0, naive: float | None = 15.0, rows: int = 100, estimator: Estimator = LIGHTGBM
) -> Candidate:
    return Candidate(estimator, metric, naive, rows, source_run=8)


def verdict(
    ours: Candidate, champion: Champion | None = None, comparison: Comparison | None = None, gate: Gate = GATE
) -> Verdict:
    return judge(ours, champion, comparison, gate=gate, metric=Metric.RMSE)


@pytest.mark.parametrize(
    ("ours", "reason"),
    [
        (Candidate(None, reason="12 rows < 40"), "no candidate: 12 rows < 40"),
        (candidate(rows=9), "9 holdout rows < 10"),
        (candidate(metric=20.1, naive=30.0), "rmse 20.1 > limit 20"),
        (candidate(metric=14.8), "rmse 14.8 against 15 of the naive rule is a gain of 1.3% < 2.0%"),
        (candidate(naive=None), "no rmse of the naive rule was measured on the holdout"),
        (candidate(metric=math.nan), "no rmse was measured on the holdout"),
    ],
)
def test_holds_with_the_numbers(ours: Candidate, reason: str) -> None:
    assert verdict(ours) == Hold(reason=reason)


def test_promotes_with_the_numbers() -> None:
    assert verdict(candidate()) == Promote(
        reason="rmse 14 on 100 holdout rows, 6.7% better than the naive 15; no champion to compare with"
    )


def test_the_naive_rule_need_not_beat_itself_but_keeps_the_limit() -> None:
    assert isinstance(verdict(candidate(metric=15.0, estimator=NAIVE)), Promote)
    assert isinstance(verdict(candidate(metric=21.0, naive=21.0, estimator=NAIVE)), Hold)


def test_a_naive_rule_that_is_never_wrong_cannot_be_beaten() -> None:
    assert isinstance(verdict(candidate(metric=0.0, naive=0.0)), Hold)
    assert isinstance(verdict(candidate(metric=0.0, naive=0.0), gate=Gate(min_gain=0)), Promote)


def test_new_rows_decide_against_the_champion_rather_than_recorded_metrics() -> None:
    champion = Champion(LIGHTGBM, metric=5.0, source_run=7)  # recorded in an easier month
    promoted = verdict(candidate(), champion, Comparison(rows=64, candidate=14.2, champion=14.0))
    assert isinstance(promoted, Promote)
    assert promoted.reason.endswith("14.2 ≤ 14 of the champion (run 7) on the same 64 new rows + 5.0%")
    held = verdict(candidate(), champion, Comparison(rows=64, candidate=14.8, champion=14.0))
    assert held == Hold(reason="rmse 14.8 > 14 of the champion (run 7) on the same 64 new rows + 5.0%")


def test_too_few_new_rows_leave_the_recorded_metrics() -> None:
    champion = Champion(LIGHTGBM, metric=13.0, source_run=7)
    held = verdict(candidate(), champion, Comparison(rows=3, candidate=1.0, champion=99.0))
    assert held == Hold(reason="rmse 14 > 13 of the champion (run 7) as recorded (3 new rows are too few) + 5.0%")
    assert isinstance(verdict(candidate(metric=13.6), champion), Promote)


def test_a_reused_model_that_serves_already_goes_on() -> None:
    champion = Champion(LIGHTGBM, metric=1.0, source_run=8)
    promoted = verdict(candidate(), champion, Comparison(rows=64, candidate=99.0, champion=1.0))
    assert isinstance(promoted, Promote)
    assert promoted.reason.endswith("it is the champion itself, of run 8")


missing = st.sampled_from([None, math.nan, math.inf, -math.inf])
number = st.floats(0, 100)
gates = st.builds(
    Gate,
    max_error=st.none() | st.floats(0.1, 100),
    min_gain=st.floats(-1, 0.9),
    max_regression=st.floats(0, 10),
    min_holdout_rows=st.integers(1, 50),
)
champions = st.builds(Champion, st.sampled_from(Estimator), number | missing, st.integers(1, 9))
comparisons = st.builds(Comparison, st.integers(0, 100), number | missing, number | missing)


@given(missing, number | missing, st.integers(0, 100), st.sampled_from(Estimator), gates, st.data())
def test_a_missing_metric_never_promotes(
    metric: float | None,
    naive: float | None,
    rows: int,
    estimator: Estimator,
    gate: Gate,
    data: st.DataObject,
) -> None:
    champion, comparison = data.draw(st.none() | champions), data.draw(st.none() | comparisons)
    assert isinstance(verdict(candidate(metric, naive, rows, estimator), champion, comparison, gate), Hold)


@given(number | missing, number | missing, st.integers(0, 100), st.sampled_from(Estimator), gates, st.data())
def test_whatever_is_promoted_was_measured_and_keeps_every_rule(
    metric: float | None,
    naive: float | None,
    rows: int,
    estimator: Estimator,
    gate: Gate,
    data: st.DataObject,
) -> None:
    champion, comparison = data.draw(st.none() | champions), data.draw(st.none() | comparisons)
    ours = candidate(metric, naive, rows, estimator)
    if isinstance(verdict(ours, champion, comparison, gate), Promote):
        assert metric is not None
        assert math.isfinite(metric)
        assert rows >= gate.min_holdout_rows
        assert gate.max_error is None or metric <= gate.max_error
        if estimator is not NAIVE:
            assert naive is not None
            assert metric <= naive * (1 - gate.min_gain) + 1e-9
        if champion is not None and (estimator, 8) != (champion.estimator, champion.source_run):
            compared = comparison is not None and comparison.rows >= gate.min_holdout_rows
            values = [champion.metric, *([comparison.candidate, comparison.champion] if compared else [])]
            assert any(value is not None and math.isfinite(value) for value in values)


def test_frames_are_judged_row_by_row() -> None:
    fitted = {
        "estimator": "lightgbm",
        "metric": 14.0,
        "naive_metric": 15.0,
        "holdout_rows": 100,
        "source_run": 8,
    }
    trained = pd.DataFrame(
        [
            {"partition": "a"} | fitted,
            {"partition": "b"} | fitted | {"source_run": 7},
            {"partition": "c", "reason": "12 rows < 40"},
            {"partition": "d"} | fitted,
        ],
        columns=list(PARTITION_MODEL),
    )
    serving = pd.DataFrame(
        [
            ("a", "promote", "", "own", False, "lightgbm", 7, 10.0, 15.0),
            ("b", "promote", "", "own", False, "lightgbm", 7, 14.0, 15.0),
            ("d", "hold", "", "tenant_wide", True, "tenant_wide", 7, None, None),
        ],
        columns=list(VERDICT),
    )
    judged = judge_all(trained, serving, {"a": Comparison(50, 14.0, 14.1)}, gate=GATE, metric=Metric.RMSE)
    assert {name: made.reason.rpartition("; ")[2] for name, made in judged.items()} == {
        "a": "14 ≤ 14.1 of the champion (run 7) on the same 50 new rows + 5.0%",
        "b": "it is the champion itself, of run 7",
        "c": "no candidate: 12 rows < 40",
        "d": "no champion to compare with",
    }
    alone = judge_all(trained, serving, {}, gate=GATE, metric=Metric.RMSE, otherwise_judged={7})
    assert alone["a"].reason.endswith("no champion to compare with")
