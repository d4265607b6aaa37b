"""Laws of the training plan: every partition is in exactly one of train and settled; only what may be is reused."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.errors import NotFound
from tasks.domain.outcome import PartitionOutcome
from tasks.ports import PARTITION_MODEL
from tasks.training.plan import NOT_RENEWED, NOT_SELECTED, Plan, Selection, plan_run, training_key
from tests.samples import sales_use_case

SEEN = 5
"""The uploads up to this one were there when the previous run began."""


@dataclass(frozen=True)
class Known:
    """What the previous run has of a partition; `rows` None: nothing."""

    rows: int | None
    outcome: PartitionOutcome = PartitionOutcome.TRAINED


def table(*rows: tuple[int, int]) -> pd.DataFrame:
    """Partitions a, b, c ... with (labelled rows, last upload)."""
    names = [chr(ord("a") + number) for number in range(len(rows))]
    frame = pd.DataFrame(rows, columns=["labelled", "last_upload"]).assign(partition=names, bucket=0, open=1)
    return frame.assign(rows=frame["labelled"] + 1, last_labelled=frame["last_upload"])


def previous(**known: Known) -> pd.DataFrame:
    models = [
        {
            "partition": name,
            "outcome": one.outcome.value,
            "rows": one.rows,
            "estimator": None if one.outcome in (PartitionOutcome.REJECTED, PartitionOutcome.FAILED) else "lightgbm",
            "reason": "",
            "data_hash": f"hash of {name}",
            "source_run": 3,
        }
        for name, one in known.items()
        if one.rows is not None
    ]
    return pd.DataFrame(models, columns=list(PARTITION_MODEL))


def outcomes(plan: Plan) -> dict[str, str]:
    settled = dict(zip(plan.settled["partition"], plan.settled["outcome"], strict=True))
    return dict.fromkeys(plan.train["partition"], "train") | settled


PARTITION = st.tuples(st.integers(0, 3), st.integers(1, 8))
KNOWN = st.builds(Known, st.none() | st.integers(0, 3), st.sampled_from(PartitionOutcome))
CASES = st.lists(st.tuples(PARTITION, KNOWN), min_size=1, max_size=6)


def selections(names: list[str]) -> st.SearchStrategy[Selection]:
    some = st.lists(st.sampled_from(names), unique=True, max_size=3).map(tuple)
    return st.builds(Selection, st.booleans(), some, st.booleans())


@given(st.data(), CASES, st.booleans())
def test_every_partition_is_either_trained_or_settled(
    data: st.DataObject, cases: list[tuple[tuple[int, int], Known]], first: bool
) -> None:
    frame = table(*(partition for partition, _ in cases))
    names = list(frame["partition"])
    earlier = None if first else previous(**dict(zip(names, (known for _, known in cases), strict=True)))
    selection = data.draw(selections(names))
    plan = plan_run(frame, earlier, SEEN, selection)

    assert sorted([*plan.train["partition"], *plan.settled["partition"]]) == names
    assert tuple(plan.settled.columns) == PARTITION_MODEL
    assert list(plan.train.columns) == ["partition", "bucket", "rows"]
    rows = frame.set_index("partition")["labelled"]
    assert all(rows[name] > 0 for name in plan.train["partition"]), "nothing can be learnt without targets"
    assert dict(zip(plan.train["partition"], plan.train["rows"], strict=True)) == {
        name: rows[name] for name in plan.train["partition"]
    }
    reused = plan.settled[plan.settled["outcome"] == PartitionOutcome.REUSED]
    assert reused["estimator"].notna().all(), "only what has a model can be reused"
    if selection.partitions:
        assert set(plan.train["partition"]) <= set(selection.partitions)
    if selection.again and not selection.partitions and not (selection.only_failed and earlier is not None):
        assert set(plan.train["partition"]) == set(rows[rows > 0].index)
    rejected = plan.settled[plan.settled["outcome"] == PartitionOutcome.REJECTED]
    assert set(plan.settled["partition"]) == set(reused["partition"]) | set(rejected["partition"])


def test_a_first_run_trains_whatever_has_a_target() -> None:
    plan = plan_run(table((10, 1), (0, 1), (3, 1)), None, 0, Selection())
    assert outcomes(plan) == {"a": "train", "b": "rejected", "c": "train"}
    assert plan.settled["reason"].tolist() == ["no row with a target"]


def test_what_did_not_change_is_reused_with_its_origin() -> None:
    frame = table((10, SEEN), (10, SEEN + 1), (11, SEEN), (10, SEEN))
    plan = plan_run(frame, previous(a=Known(10), b=Known(10), c=Known(10), d=Known(None)), SEEN, Selection())
    assert outcomes(plan) == {"a": "reused", "b": "train", "c": "train", "d": "train"}
    [kept] = plan.settled.to_dict("records")
    assert (kept["source_run"], kept["data_hash"], kept["seconds"]) == (3, "hash of a", 0.0)


def test_what_failed_is_tried_again_and_what_was_too_little_is_not() -> None:
    earlier = previous(a=Known(10, PartitionOutcome.FAILED), b=Known(10, PartitionOutcome.REJECTED))
    assert outcomes(plan_run(table((10, 1), (10, 1)), earlier, SEEN, Selection())) == {"a": "train", "b": "rejected"}
    grown = table((10, 1), (12, SEEN + 1))
    assert outcomes(plan_run(grown, earlier, SEEN, Selection())) == {"a": "train", "b": "train"}


def test_only_failed_trains_what_failed_and_keeps_the_rest_even_where_it_changed() -> None:
    earlier = previous(a=Known(10, PartitionOutcome.FAILED), b=Known(10), c=Known(10), d=Known(None))
    frame = table((10, 1), (10, 1), (20, SEEN + 1), (10, SEEN + 1))
    plan = plan_run(frame, earlier, SEEN, Selection(only_failed=True))
    assert outcomes(plan) == {"a": "train", "b": "reused", "c": "reused", "d": "rejected"}
    reasons = plan.settled.set_index("partition")["reason"]
    assert (reasons["b"], reasons["c"], reasons["d"]) == ("", NOT_RENEWED, NOT_SELECTED)

    # what was left undone is done by the next run of all, although the uploads are no newer than the run before
    models = pd.concat([plan.settled, previous(a=Known(10))])
    assert outcomes(plan_run(frame, models, SEEN + 1, Selection())) == {
        "a": "reused",
        "b": "reused",
        "c": "train",
        "d": "train",
    }
    # and it stays undone through further runs of selected ones
    again = plan_run(frame, models, SEEN + 1, Selection(partitions=("a",)))
    assert again.settled.set_index("partition")["reason"]["c"] == NOT_RENEWED
    assert again.settled.set_index("partition")["reason"]["d"] == NOT_SELECTED


def test_named_partitions_are_trained_even_if_unchanged() -> None:
    plan = plan_run(table((10, 1), (10, 1)), previous(a=Known(10), b=Known(10)), SEEN, Selection(partitions=("b",)))
    assert outcomes(plan) == {"a": "reused", "b": "train"}


def test_again_reuses_nothing() -> None:
    plan = plan_run(table((10, 1), (10, 1)), previous(a=Known(10), b=Known(10)), SEEN, Selection(again=True))
    assert outcomes(plan) == {"a": "train", "b": "train"}
    assert not Selection(again=True).reuses
    assert not Selection(partitions=("a",)).reuses
    assert Selection(only_failed=True).reuses


def test_unknown_partitions_are_named() -> None:
    with pytest.raises(NotFound, match=r"no partition 'x'.*such as a"):
        plan_run(table((10, 1)), None, 0, Selection(partitions=("x", "a")))


def test_the_key_changes_with_what_changes_the_result() -> None:
    use_case = sales_use_case()
    same = training_key(use_case, 3, Selection(), [])
    assert training_key(sales_use_case(schedule="0 3 * * *"), 3, Selection(), []) == same
    keys = {
        same,
        training_key(use_case, 4, Selection(), []),
        training_key(sales_use_case(estimators=["linear"]), 3, Selection(), []),
        training_key(sales_use_case(training={"version": 2}), 3, Selection(), []),
        training_key(use_case, 3, Selection(only_failed=True), []),
        training_key(use_case, 3, Selection(again=True), []),
        training_key(use_case, 3, Selection(partitions=("a",)), []),
        training_key(use_case, 3, Selection(partitions=("a", "b")), []),
    }
    assert len(keys) == 8
    both = [training_key(use_case, 3, Selection(partitions=names), []) for names in (("a", "b"), ("b", "a"))]
    assert both[0] == both[1]
