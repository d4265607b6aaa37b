"""Live error per partition: what was predicted against what came true."""

from __future__ import annotations

import datetime as dt
import math

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.use_case import UseCase
from tasks.monitoring.health import live_error
from tasks.ports import HEALTH
from tasks.scorer import row_keys
from tests.samples import SALES, sales_use_case

DAY = dt.date(2026, 6, 1)
SCHEMA = pa.schema(
    [
        ("row_key", pa.string()),
        ("partition", pa.string()),
        ("prediction", pa.float64()),
        ("probabilities", pa.list_(pa.float64())),
        ("baseline", pa.list_(pa.float64())),
        ("answer", pa.string()),
        ("run_id", pa.int64()),
    ]
)


def actuals(*sales: float | None) -> pd.DataFrame:
    """One day each for store 1, sku 1, 2, 3 ..."""
    rows = [(1, sku, DAY, value) for sku, value in enumerate(sales, 1)]
    return pd.DataFrame(rows, columns=["store", "sku", "day", "sales"])


def predicted(sku: int, value: float, *, naive: float = 0.0, run: int = 1, answer: str = "own") -> dict[str, object]:
    keys = pd.DataFrame({"store": [1], "sku": [sku], "day": [DAY]})
    [key] = row_keys(keys, ["store", "sku", "day"], {"store": "integer", "sku": "integer", "day": "date"})
    return {
        "row_key": key,
        "partition": f"store=1,sku={sku % 2}",
        "prediction": value,
        "baseline": [naive],
        "answer": answer,
        "run_id": run,
    }


def health(frame: pd.DataFrame, *rows: dict[str, object], use_case: UseCase | None = None) -> pd.DataFrame:
    return live_error(frame, pa.Table.from_pylist(list(rows), SCHEMA), use_case or sales_use_case())


def test_losses_are_summed_per_partition_with_the_naive_rule_beside_them() -> None:
    found = health(
        actuals(10, 20, 30),
        predicted(1, 11, naive=13),
        predicted(2, 18, answer="naive"),
        predicted(3, 33, naive=30, answer="tenant_wide"),
    )
    assert tuple(found.columns) == HEALTH
    assert found.to_dict("records") == [
        {
            "partition": "store=1,sku=0",
            "rows": 1,
            "metric": "rmse",
            "loss_sum": 4.0,
            "baseline_sum": 400.0,
            "own_rows": 0,
        },
        {
            "partition": "store=1,sku=1",
            "rows": 2,
            "metric": "rmse",
            "loss_sum": 10.0,
            "baseline_sum": 9.0,
            "own_rows": 1,
        },
    ]


def test_the_metric_is_that_of_the_use_case() -> None:
    use_case = sales_use_case(gate={"metric": "mae"})
    [row] = health(actuals(10), predicted(1, 13), use_case=use_case).to_dict("records")
    assert (row["metric"], row["loss_sum"]) == ("mae", 3.0)


def test_of_several_predictions_the_latest_run_counts() -> None:
    rows = (predicted(1, 15, run=8), predicted(1, 11, run=9), predicted(1, 99, run=2))
    [row] = health(actuals(10), *rows).to_dict("records")
    assert (row["rows"], row["loss_sum"]) == (1, 1.0)


@pytest.mark.parametrize(
    ("frame", "rows"),
    [
        (actuals(), [predicted(1, 5)]),
        (actuals(10), []),
        (actuals(10), [predicted(2, 5)]),
        (actuals(None), [predicted(1, 5)]),
    ],
    ids=["no actuals", "no predictions", "other rows", "no target"],
)
def test_without_both_there_is_no_error(frame: pd.DataFrame, rows: list[dict[str, object]]) -> None:
    found = health(frame, *rows)
    assert len(found) == 0
    assert tuple(found.columns) == HEALTH


def test_classes_are_judged_by_their_probabilities() -> None:
    late = {"as": "threshold", "from": "sales", "above": 15}
    use_case = sales_use_case(kind="classification", derived=SALES["derived"] | {"late": late}, target="late")
    rows = [
        predicted(1, math.nan) | {"probabilities": [0.8, 0.2], "baseline": [0.5, 0.5]},
        predicted(3, math.nan) | {"probabilities": [0.4, 0.6], "baseline": [0.5, 0.5]},
    ]
    [row] = health(actuals(10, 20, 30), *rows, use_case=use_case).to_dict("records")
    assert (row["metric"], row["rows"]) == ("log_loss", 2)
    assert row["loss_sum"] == pytest.approx(-math.log(0.8) - math.log(0.6))
    assert row["baseline_sum"] == pytest.approx(-2 * math.log(0.5))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(1, 10), st.floats(-1e6, 1e6)), max_size=8, unique_by=lambda pair: pair[0]),
    st.randoms(use_true_random=False),
)
def test_every_row_that_has_both_counts_once_in_any_order(
    sales: list[float], guesses: list[tuple[int, float]], random: object
) -> None:
    rows = [predicted(sku, value) for sku, value in guesses]
    found = health(actuals(*sales), *rows)
    both = [(sales[sku - 1] - value) ** 2 for sku, value in guesses if sku <= len(sales)]
    assert found["rows"].sum() == len(both)
    assert math.isclose(found["loss_sum"].sum(), sum(both), rel_tol=1e-9)
    random.shuffle(rows)  # type: ignore[attr-defined]
    shuffled = health(actuals(*sales).sample(frac=1, random_state=1), *rows)
    pd.testing.assert_frame_equal(found, shuffled)
