"""Laws of batches: every partition travels once, with others of its bucket, whatever the order."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from tasks.batches import MIN_ROWS, plan_batches

COLUMNS = ["partition", "bucket", "rows"]


@st.composite
def partitions(draw: st.DrawFn) -> pd.DataFrame:
    buckets = draw(st.lists(st.integers(0, 15), max_size=60))
    rows = draw(st.lists(st.integers(1, 3 * MIN_ROWS), min_size=len(buckets), max_size=len(buckets)))
    return pd.DataFrame(
        [(f"store={n}", b, r) for n, (b, r) in enumerate(zip(buckets, rows, strict=True))], columns=COLUMNS
    )


@given(partitions(), st.integers(1, 200))
def test_every_partition_is_in_one_batch_of_its_bucket(frame: pd.DataFrame, most: int) -> None:
    batches = plan_batches(7, frame, most)
    assert sorted(name for batch in batches for name in batch.partitions) == sorted(frame["partition"])
    bucket, rows = (dict(zip(frame["partition"], frame[name], strict=True)) for name in ("bucket", "rows"))
    for number, batch in enumerate(batches, 1):
        assert (batch.number, batch.run_id) == (number, 7)
        assert {bucket[name] for name in batch.partitions} == {batch.bucket}
        assert batch.rows == sum(rows[name] for name in batch.partitions)


@given(partitions(), st.integers(1, 200), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(frame: pd.DataFrame, most: int, random: object) -> None:
    shuffled = frame.sample(frac=1, random_state=random.getrandbits(32)) if len(frame) else frame  # type: ignore[attr-defined]
    assert plan_batches(7, shuffled, most) == plan_batches(7, frame, most)


@given(partitions(), st.integers(1, 200))
def test_batches_are_neither_many_nor_larger_than_need_be(frame: pd.DataFrame, most: int) -> None:
    batches = plan_batches(7, frame, most)
    size = max(MIN_ROWS, -(-int(frame["rows"].sum()) // most)) if len(frame) else 0
    # Two batches of a bucket in a row hold more than `size` together, else they would be one.
    assert len(batches) <= 2 * most + frame["bucket"].nunique()
    for batch in batches:
        assert batch.rows <= size or len(batch.partitions) == 1
    in_order = sorted(batches, key=lambda batch: (batch.bucket, batch.partitions))
    for one, next_one in pairwise(in_order):
        if one.bucket == next_one.bucket:
            assert one.rows + next_one.rows > size


def test_no_partition_is_no_batch() -> None:
    assert plan_batches(1, pd.DataFrame(columns=COLUMNS), 200) == []
