"""Estimates from past runs made up by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from tasks.estimation.estimate import BUNDLE_BYTES, FILE_COPIES, CpuModel, estimate
from tasks.estimation.past import NO_PAST, Past, Source, own_past, peers_past, similar_peers
from tasks.estimation.units import DEFAULTS, Kind, Unit
from tasks.estimation.work import Work

BATCH = Kind.TRAINING_BATCH
NEXT = Work((Unit(Kind.START), Unit(BATCH, 10, 1000)), train=10)


def runs(
    *sizes: tuple[int, int], noise: tuple[float, ...] = (), recipe: str = "x/1"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs of one batch, (partitions, rows) of it, the newest first: 1 s to start, 0.1 s a partition, 1 ms a row."""
    units, jobs = [], []
    for age, (partitions, rows) in enumerate(sizes):
        cpu_s = (0.1 * partitions + 0.001 * rows) * (noise[age] if noise else 1.0)
        units.append((f"{recipe}-{age}", BATCH.value, cpu_s, partitions, rows, 1000.0 * partitions, recipe))
        jobs.append((f"{recipe}-{age}", 1 + cpu_s, 2 + cpu_s / 2, 300.0 + rows / 100, age))
    return (
        pd.DataFrame(units, columns=["job", "kind", "cpu_s", "partitions", "rows", "bytes_out", "recipe"]),
        pd.DataFrame(jobs, columns=["job", "cpu_s", "wall_s", "peak_mb", "age"]),
    )


SIZES = ((5, 300), (10, 200), (3, 900), (20, 1500), (8, 100))


def own(*sizes: tuple[int, int], noise: tuple[float, ...] = ()) -> Past:
    return own_past(*runs(*sizes, noise=noise), "x/1")


def test_without_any_run_the_default_rates_count_and_the_range_is_wide() -> None:
    found = estimate(NEXT, NO_PAST)
    start, batch = DEFAULTS[Kind.START], DEFAULTS[BATCH]
    expected = start[0] + batch[0] + 10 * batch[1] + 1000 * batch[2]
    assert (found.source, found.runs) == (Source.NONE, 0)
    assert found.cpu_s.expected == pytest.approx(expected)
    assert found.cpu_s.low == pytest.approx(expected / 3)
    assert found.cpu_s.high == pytest.approx(expected * 3)


def test_from_its_own_runs() -> None:
    found = estimate(NEXT, own(*SIZES))
    assert (found.source, found.runs) == (Source.OWN, 5)
    assert found.cpu_s.expected == pytest.approx(1 + 1 + 1, rel=0.03)
    assert found.wall_s.expected == pytest.approx(2 + 1, rel=0.05)  # 2 + (3 − 1) / 2
    assert found.peak_mb.expected == pytest.approx(310, rel=0.02)
    assert found.cpu_s.low < 3 < found.cpu_s.high
    assert found.cpu_s.high / found.cpu_s.low < 1.5


def test_the_range_is_as_wide_as_runs_differ() -> None:
    calm = estimate(NEXT, own(*SIZES)).cpu_s
    wild = estimate(NEXT, own(*SIZES, noise=(0.6, 1.5, 1.0, 0.7, 1.4))).cpu_s
    assert wild.high / wild.low > 2 * calm.high / calm.low


def test_doubt_about_the_work_widens_the_range() -> None:
    sure, unsure = (estimate(Work(NEXT.units, doubt=doubt), own(*SIZES)).cpu_s for doubt in (0.0, 0.5))
    assert unsure.expected == sure.expected
    assert unsure.high > 2 * sure.high


def test_what_no_unit_explains_is_the_start() -> None:
    model = CpuModel(own(*SIZES))
    assert model.cpu_s([Unit(Kind.START)]) == pytest.approx(1.0, rel=0.01)


def test_a_kind_of_work_that_is_new_costs_by_default_what_the_rest_suggests() -> None:
    past = own((0, 0))
    assert past.units["cpu_s"].sum() == pytest.approx(1.0)
    factor = 1.0 / (DEFAULTS[Kind.START][0] + DEFAULTS[BATCH][0])
    assert CpuModel(past).cpu_s([Unit(Kind.SCORING, 10, 100)]) == pytest.approx(
        factor * (DEFAULTS[Kind.SCORING][0] + 10 * DEFAULTS[Kind.SCORING][1] + 100 * DEFAULTS[Kind.SCORING][2])
    )


def test_runs_under_another_contract_count_while_there_are_no_others() -> None:
    units, jobs = (pd.concat(both) for both in zip(runs(*SIZES), runs((1, 1), recipe="old/1"), strict=True))
    assert own_past(units, jobs, "x/1").groups == [f"x/1-{age}" for age in range(5)]
    changed = own_past(units, jobs, "newest/1")
    assert (changed.source, len(changed.jobs)) == (Source.EARLIER, 6)


def test_peers_are_left_out_as_a_whole() -> None:
    past = peers_past(Source.SIMILAR, [("acme.a", *runs(*SIZES)), ("zeta.b", *runs((1, 1), recipe="y/1"))])
    assert past.groups == ["acme.a", "zeta.b"]
    assert len(past.without("acme.a").jobs) == 1
    assert estimate(NEXT, past).runs == 6
    assert peers_past(Source.ALL, []) == NO_PAST


def test_similar_is_of_the_same_tier_and_kind_and_of_partitions_alike() -> None:
    peers = pd.DataFrame(
        [("a", "free", "regression", 100), ("b", "free", "regression", 350), ("c", "free", "regression", 5000),
         ("d", "free", "classification", 100), ("e", "premium", "regression", 100)],
        columns=["tenant", "tier", "kind", "rows_per_partition"],
    )  # fmt: skip
    assert list(similar_peers(peers, "free", "regression", 300)["tenant"]) == ["b", "a"]
    assert list(similar_peers(peers, "free", "regression", None)["tenant"]) == ["a", "b", "c"]
    assert similar_peers(peers, "standard", "regression", 300).empty


def test_storage_by_what_a_model_and_a_prediction_took() -> None:
    units = (*NEXT.units, Unit(Kind.TRAINING, 30), Unit(Kind.TRAINING, 0))  # the second one has nothing to pack
    found = estimate(Work(units, models=30, file_bytes=5000), own(*SIZES)).storage_bytes
    assert found.expected == pytest.approx(2 * 1000 * 30 + FILE_COPIES * 5000 + BUNDLE_BYTES)
    assert found.low < found.expected < found.high


def test_nothing_to_do_uses_nothing() -> None:
    found = estimate(Work(), own(*SIZES))
    assert (found.cpu_s.high, found.storage_bytes.high) == (0.0, 0.0)
    assert math.isfinite(found.wall_s.expected)
