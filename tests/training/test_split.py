from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.rows import labelled_rows
from tasks.training.split import split
from tests.training.frames import churn, customers, demand, sales

times = st.lists(st.integers(0, 8), min_size=3, max_size=60).map(sorted)


@given(times, st.floats(0.05, 0.45), st.floats(0.05, 0.45))
def test_no_training_row_is_later_than_a_holdout_row(values: list[int], validation: float, holdout: float) -> None:
    ordered = np.array(values, dtype=np.float64)
    cut = split(len(ordered), validation, holdout, ordered)
    assert 0 < cut.validation < cut.holdout < cut.rows == len(ordered)
    assert ordered[: cut.validation].max() <= ordered[cut.validation : cut.holdout].min()
    assert ordered[: cut.holdout].max() <= ordered[cut.holdout :].min()


def test_rows_of_one_time_stay_together() -> None:
    ordered = np.repeat(np.arange(10.0), 7)
    cut = split(70, 0.2, 0.2, ordered)
    assert (cut.validation, cut.holdout) == (42, 56)
    cut = split(70, 0.18, 0.23, ordered)
    assert ordered[cut.validation - 1] < ordered[cut.validation]
    assert ordered[cut.holdout - 1] < ordered[cut.holdout]


def test_one_single_time_is_cut_all_the_same() -> None:
    assert split(10, 0.2, 0.2, np.zeros(10)) == (6, 8, 10)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=60, unique=True).map(sorted))
def test_without_time_a_row_keeps_its_part_when_others_come(hashes: list[int]) -> None:
    """A row leaves its part only where a part would be empty otherwise."""
    cut = split(len(hashes), 0.2, 0.2, key_hashes=np.array(hashes, dtype=np.uint64))
    assert 0 < cut.validation < cut.holdout < cut.rows
    limit = int(0.6 * 2**64)
    if sum(value < limit for value in hashes) > 0 and sum(value >= limit for value in hashes) > 1:
        assert all(value < limit for value in hashes[: cut.validation])


@given(st.integers(0, 10_000))
def test_the_order_of_the_input_does_not_matter(seed: int) -> None:
    for use_case, frame in ((demand(), sales(2, 20)), (churn(), customers(40))):
        there, places = labelled_rows(frame, use_case)
        shuffled = frame.sample(frac=1, random_state=seed)
        here, others = labelled_rows(shuffled, use_case)
        assert places == others
        assert (frame.index[there.positions] == shuffled.index[here.positions]).all()
        for part in places.values():
            assert there.part(part).data_hash() == here.part(part).data_hash()


def test_unlabelled_rows_are_left_out_and_changed_content_changes_the_hash() -> None:
    frame = sales(1, 30)
    use_case = demand()
    full, _ = labelled_rows(frame, use_case)
    frame.loc[3, "sales"] = np.nan
    frame.loc[4, "last_week"] = np.inf
    fewer, _ = labelled_rows(frame, use_case)
    assert set(fewer.positions) == set(full.positions) - {3, 4}
    frame = sales(1, 30)
    frame.loc[3, "price"] += 1e-9
    assert labelled_rows(frame, use_case)[0].data_hash() != full.data_hash()
