"""Rates and ranges, computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.estimation.fit import Range, left_out, ranged, rates, spread

DEFAULT = (1.0, 1.0, 0.1)


def fitted(*units: tuple[float, float, float], weights: list[float] | None = None) -> list[float]:
    """Rates of units (partitions, rows, CPU seconds)."""
    x = np.array([(1.0, partitions, rows) for partitions, rows, _ in units]).reshape(-1, 3)
    y = np.array([cpu_s for *_, cpu_s in units], dtype=np.float64)
    return rates(x, y, np.array(weights or [1.0] * len(units)), DEFAULT).tolist()


def test_rates_are_found_again() -> None:
    sizes = [(1, 10), (5, 10), (2, 300), (9, 50), (4, 120), (7, 900)]
    found = fitted(*((partitions, rows, 2 + 3 * partitions + 0.5 * rows) for partitions, rows in sizes))
    assert found == pytest.approx([2, 3, 0.5], rel=0.05)


def test_without_measurements_the_defaults_count() -> None:
    assert fitted() == list(DEFAULT)


def test_a_single_measurement_scales_the_defaults() -> None:
    # 1 + 2 + 0.1 · 10 = 4 is expected; 8 were used: everything costs twice as much.
    assert fitted((2, 10, 8)) == pytest.approx([2, 2, 0.2])


def test_what_one_size_cannot_tell_apart_keeps_the_proportions_of_the_defaults() -> None:
    # 1 + 3 + 0.1 · 60 = 10 is expected, 5 were used.
    assert fitted(*[(3, 60, 5.0)] * 4) == pytest.approx([0.5, 0.5, 0.05])


def test_no_rate_is_negative() -> None:
    found = fitted((1, 100, 9.0), (5, 50, 5.0), (9, 10, 1.0))  # more partitions, less CPU
    assert min(found) >= 0
    assert found[2] > 0


def test_a_unit_that_something_else_slowed_down_decides_nothing() -> None:
    units = [(n, 10 * n, 1.0 + n + n) for n in range(1, 20)]
    calm, disturbed = fitted(*units), fitted(*units[:-5], (15, 150, 310.0), *units[-4:])
    assert sum(r * x for r, x in zip(disturbed, (1, 10, 100), strict=True)) == pytest.approx(21, rel=0.1)
    assert sum(r * x for r, x in zip(calm, (1, 10, 100), strict=True)) == pytest.approx(21, rel=0.01)


def test_newer_runs_count_more() -> None:
    assert sum(fitted((0, 0, 1.0), (0, 0, 3.0), weights=[1.0, 0.0])) - sum(DEFAULT[1:]) < 1.2
    found = fitted((0, 0, 1.0), (0, 0, 3.0), weights=[3.0, 1.0])
    assert 1.0 < found[0] < 2.0


def test_the_spread_of_nothing_of_one_and_of_many() -> None:
    assert spread([], []) == (math.log(3), 0)
    # log 1.5 = 0.405465 stands in for three others: √((0.01 + 3 · 0.164402) / 4)
    assert spread([0.1], [1.0]) == (pytest.approx(0.354687, rel=1e-4), 4)
    assert spread([math.log(2), -math.log(2)] * 3, [1.0] * 6) == (pytest.approx(math.log(2)), 6)
    assert spread([0.3, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 3.0]) == (pytest.approx(0.122474, rel=1e-4), 4)  # √(0.09 / 6)


def test_each_is_predicted_from_the_others() -> None:
    asked: list[str] = []

    def without(group: str) -> float:
        asked.append(group)
        return 4.0

    names = ["a", "b", "c", "d"]
    assert left_out(names, [2.0, 8.0, 2.0, 8.0], without, [1.0] * 4) == (pytest.approx(math.log(2)), 4)
    assert asked == names
    assert left_out(["a"], [2.0], without, [1.0]) == spread([0.0], [1.0]), "one has no others"


def test_a_range_by_students_t() -> None:
    assert ranged(10, math.log(2), 0) == Range(pytest.approx(5), 10, pytest.approx(20))
    # five runs: t(0.95, 4) = 2.1318; 2.1318 · 0.1 · √1.2 = 0.23353; e^0.23353 = 1.26305
    found = ranged(100, 0.1, 5)
    assert (found.low, found.expected, found.high) == (
        pytest.approx(79.173, rel=1e-4),
        100,
        pytest.approx(126.305, rel=1e-4),
    )


def test_ranges_add_up() -> None:
    assert Range(1, 2, 3).plus(Range(10, 20, 30)) == Range(11, 22, 33)
    assert Range(1, 2, 3).times(2) == Range(2, 4, 6)
