"""Where a partition's rows are cut into training, validation and holdout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tasks.scorer import Floats


class Split(NamedTuple):
    """Cuts of rows that are sorted by time: training is [0, validation), then come validation and holdout."""

    validation: int
    holdout: int
    rows: int


def split(rows: int, validation: float, holdout: float, times: Floats | None = None) -> Split:
    """Cuts sorted rows by shares, so that no training row is later than a validation or holdout row.

    `times` are the rows' times in ascending order. Rows of one time stay on one side of a cut where that
    leaves no part empty. Without times the rows are expected in an order of their own, such as a hash of
    the row key. Every part has at least one row; `rows` is at least 3.
    """
    holdout_rows = max(1, round(rows * holdout))
    validation_rows = max(1, round(rows * validation))
    second = rows - holdout_rows
    first = max(1, second - validation_rows)
    if times is not None:
        second = _between_times(times, second, 1, rows)
        first = _between_times(times, min(first, second - 1), 0, second)
    return Split(first, second, rows)


def _between_times(times: Floats, cut: int, low: int, high: int) -> int:
    """The nearest cut in (low, high) with different times on both sides; the given one if there is none."""
    before = int(np.searchsorted(times, times[cut], side="left"))
    after = int(np.searchsorted(times, times[cut], side="right"))
    places = [place for place in (before, after) if low < place < high]
    return min(places, key=lambda place: abs(place - cut)) if places else cut
