"""Where a partition's rows are cut into training, validation and holdout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.scorer import Floats


class Split(NamedTuple):
    """Cuts of rows that are sorted by time: training is [0, validation), then come validation and holdout."""

    validation: int
    holdout: int
    rows: int


def split(
    rows: int,
    validation: float,
    holdout: float,
    times: Floats | None = None,
    key_hashes: NDArray[np.uint64] | None = None,
) -> Split:
    """Cuts sorted rows by shares, so that no training row is later than a validation or holdout row.

    `times` are the rows' times in ascending order. Rows of one time stay on one side of a cut where that
    leaves no part empty. Without times, `key_hashes` in ascending order decide by their value, so that a row
    keeps its part when others come. Every part has at least one row; `rows` is at least 3.
    """
    if times is not None:
        second = rows - max(1, round(rows * holdout))
        first = max(1, second - max(1, round(rows * validation)))
        second = _between_times(times, second, 1, rows)
        return Split(_between_times(times, min(first, second - 1), 0, second), second, rows)
    if key_hashes is None:
        raise ValueError("rows are split by times or by hashes of their keys; expected: one of them")
    shares = (1 - validation - holdout, 1 - holdout)
    first, second = (int(np.searchsorted(key_hashes, np.uint64(share * 2**64))) for share in shares)
    second = min(max(second, 2), rows - 1)
    return Split(min(max(first, 1), second - 1), second, rows)


def _between_times(times: Floats, cut: int, low: int, high: int) -> int:
    """The nearest cut in (low, high) with different times on both sides; the given one if there is none."""
    before = int(np.searchsorted(times, times[cut], side="left"))
    after = int(np.searchsorted(times, times[cut], side="right"))
    places = [place for place in (before, after) if low < place < high]
    return min(places, key=lambda place: abs(place - cut)) if places else cut
