"""Predictions, verdicts, releases, runs and live error as they are read: page by page, against a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from infra.database.predictions import PREDICTIONS, Place, Wanted
from infra.database.records import PostgresRecords
from tasks.domain.errors import NotFound
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Release, Run, RunStatus
from tests.conftest import MakeRecords

NAMES: Iterator[str] = (f"read-{number}" for number in count(1))
WANTED = Wanted("sales")


@pytest.fixture
def records(make_records: MakeRecords) -> PostgresRecords:
    """Records of a tenant that no other test uses."""
    return make_records(next(NAMES))


def answers(keys: list[tuple[str, str]], value: float = 1.0, **columns: Any) -> pa.Table:
    """`PREDICTION` rows of those partitions and row keys."""
    size = len(keys)
    given = {
        "partition": [partition for partition, _ in keys],
        "row_key": [row_key for _, row_key in keys],
        "prediction": pa.array([value] * size, pa.float64()),
        "label": pa.nulls(size, pa.string()),
        "probabilities": pa.nulls(size, pa.list_(pa.float64())),
        "baseline": pa.array([[0.5]] * size, pa.list_(pa.float64())),
        "answer": ["own"] * size,
        "fallback": [False] * size,
        "model_run": pa.array([7] * size, pa.int64()),
    }
    return pa.table(given | columns)


def publish(
    records: PostgresRecords,
    key: str,
    upload_id: str,
    batches: list[pa.Table],
    release: int = 1,
    use_case: str = "sales",
) -> Run:
    """A scoring run of an upload, with those batches."""
    records.add_upload(use_case, Purpose.SCORING, upload_id, "a.csv", 1, upload_id)
    run = records.open_run(Stage.SCORING, use_case, key, upload_id=upload_id, release_version=release)
    planned = [
        Batch(
            run_id=run.run_id,
            number=number,
            bucket=0,
            partitions=tuple(sorted(set(rows["partition"].to_pylist()))),
            rows=len(rows),
        )
        for number, rows in enumerate(batches, 1)
    ]
    records.plan(run, planned)
    for batch, rows in zip(planned, batches, strict=True):
        records.finish_scoring_batch(batch, rows)
    return records.publish_scores(run, {})


def place_of(row: dict[str, Any]) -> Place:
    return Place(row["scored_at"], row["run_id"], row["batch"], row["partition"], row["row_key"])


def paged(records: PostgresRecords, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    """All rows, read page by page, each page as if by another process."""
    found: list[dict[str, Any]] = []
    while True:
        after = place_of(found[-1]) if found else None
        page = records.predictions_after(wanted, records.scored_runs(wanted, after), after, limit).to_pylist()
        assert len(page) <= limit
        found += page
        if len(page) < limit:
            return found


def keys_of(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["partition"], row["row_key"]) for row in rows]


STORES = [[(f"store={store}", f"{store},{day}") for day in (3, 1, 2) for store in stores] for stores in ((2, 1), (10,))]


def test_a_row_is_what_was_stored(records: PostgresRecords) -> None:
    odd = 'a "b",\nc\t=1 \\N ü'
    rows = answers(
        [("store=1", odd), ("store=1", "z"), ("store=1", "zz")],
        prediction=pa.array([1 / 3, float("nan"), None]),
        label=pa.array(["", "=x", None]),
        probabilities=pa.array([[0.1, 0.9], [], None], pa.list_(pa.float64())),
        fallback=pa.array([True, False, False]),
        model_run=pa.array([None, 2, 3], pa.int64()),
    )
    run = publish(records, "a", "u1", [rows], release=4)
    found = records.predictions_after(WANTED, records.scored_runs(WANTED), None, 10)
    assert found.schema == PREDICTIONS
    first, second, third = found.to_pylist()
    assert (first["row_key"], first["prediction"], first["label"]) == (odd, 1 / 3, "")
    assert (first["probabilities"], first["baseline"], first["fallback"]) == ([0.1, 0.9], [0.5], True)
    assert first["model_run"] is None
    assert second["prediction"] != second["prediction"]
    assert (second["label"], second["probabilities"], third["probabilities"]) == ("=x", [], None)
    assert third["prediction"] is None
    assert third["label"] is None
    assert (first["release_version"], first["upload_id"], first["run_id"]) == (4, "u1", run.run_id)
    assert abs(first["scored_at"] - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_pages_put_together_are_the_whole_in_one_order(records: PostgresRecords, limit: int) -> None:
    publish(records, "a", "u1", [answers(STORES[0]), answers(STORES[1])])
    publish(records, "b", "u2", [answers(STORES[0])])
    found = paged(records, WANTED, limit)
    assert keys_of(found) == [*sorted(STORES[0]), *sorted(STORES[1]), *sorted(STORES[0])]
    assert [row["upload_id"] for row in found] == ["u1"] * 9 + ["u2"] * 6


def test_what_is_published_meanwhile_comes_at_the_end(records: PostgresRecords) -> None:
    publish(records, "a", "u1", [answers(STORES[0])])
    publish(records, "b", "u2", [answers(STORES[1], 2.0)])
    start = records.predictions_after(WANTED, records.scored_runs(WANTED), None, 2).to_pylist()
    publish(records, "c", "u3", [answers(STORES[1], 3.0)])
    publish(records, "d", "u2", [answers(STORES[1], 4.0)], release=2)  # u2 is scored anew
    after = place_of(start[-1])
    rest = records.predictions_after(WANTED, records.scored_runs(WANTED, after), after, 100).to_pylist()
    assert keys_of(start + rest) == [*sorted(STORES[0]), *sorted(STORES[1]), *sorted(STORES[1])]
    assert [row["prediction"] for row in rest] == [1.0] * 4 + [3.0] * 3 + [4.0] * 3
    whole = paged(records, WANTED, 3)
    assert whole == start + rest


def test_who_reads_a_run_that_is_superseded_goes_on_with_what_came_instead(records: PostgresRecords) -> None:
    publish(records, "a", "u1", [answers(STORES[0])])
    runs = records.scored_runs(WANTED)
    start = records.predictions_after(WANTED, runs, None, 2).to_pylist()
    publish(records, "b", "u1", [answers(STORES[0], 2.0)])
    after = place_of(start[-1])
    rest = records.predictions_after(WANTED, records.scored_runs(WANTED, after), after, 100).to_pylist()
    assert keys_of(rest) == sorted(STORES[0])
    assert {row["prediction"] for row in rest} == {2.0}
    kept = records.predictions_after(WANTED, runs, after, 100).to_pylist()  # who keeps the runs is not disturbed
    assert keys_of(start + kept) == sorted(STORES[0])
    assert {row["prediction"] for row in kept} == {1.0}


def test_filters(records: PostgresRecords) -> None:
    publish(records, "a", "u1", [answers(STORES[0]), answers(STORES[1])])
    publish(records, "b", "u2", [answers(STORES[0], 2.0)], release=2)
    publish(records, "c", "u1", [answers(STORES[0], 3.0)], release=2)
    first, second, third = records.scored_runs(Wanted("sales", current=False))
    for wanted, expected in (
        (Wanted("sales", partition="store=1"), [2.0] * 3 + [3.0] * 3),
        (Wanted("sales", row_key="2,1"), [2.0, 3.0]),
        (Wanted("sales", partition="store=1", row_key="2,1"), []),
        (Wanted("sales", partition="store=10"), []),
        (Wanted("sales", partition="store=10", current=False), [1.0] * 3),
        (Wanted("sales", release=1), []),
        (Wanted("sales", release=1, current=False), [1.0] * 9),
        (Wanted("sales", since=third.published_at), [3.0] * 6),
        (Wanted("sales", since=third.published_at + timedelta(microseconds=1)), []),
        (Wanted("sales", since=first.published_at, row_key="2,1", current=False), [1.0, 2.0, 3.0]),
        (Wanted("other"), []),
    ):
        for limit in (1, 100):
            assert [row["prediction"] for row in paged(records, wanted, limit)] == expected, wanted
    assert second.release_version == 2


def test_runs_that_are_not_published_are_not_read(records: PostgresRecords) -> None:
    run = records.open_run(Stage.SCORING, "sales", "a", release_version=1)
    batch = Batch(run_id=run.run_id, number=1, bucket=0, partitions=("store=1",), rows=1)
    records.plan(run, [batch])
    records.finish_scoring_batch(batch, answers([("store=1", "1")]))
    assert paged(records, WANTED, 10) == []
    assert paged(records, Wanted("sales", current=False), 10) == []


def test_large_batches_and_many_small_ones_are_read_in_bounded_pieces(
    records: PostgresRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Millions of rows would show the same, later.
    monkeypatch.setattr("infra.database.predictions.READ_ROWS", 4)
    monkeypatch.setattr("infra.database.predictions.RUNS_AT_ONCE", 2)
    expected = []
    for run in range(5):
        batches = [
            [(f"store={store}", f"{store},{day}") for day in range(size)] for store, size in enumerate((1, 9, 2))
        ]
        publish(records, f"k{run}", f"u{run}", [answers(batch) for batch in batches])
        expected += [key for batch in batches for key in sorted(batch)]
    for limit in (2, 7, 1000):
        assert keys_of(paged(records, WANTED, limit)) == expected
    assert keys_of(paged(records, Wanted("sales", partition="store=1"), 2)) == [
        key for key in expected if key[0] == "store=1"
    ]


def test_readers_page_through_while_others_publish(records: PostgresRecords) -> None:
    publish(records, "first", "u-first", [answers(STORES[0])])
    done = threading.Event()

    def work() -> None:
        for number in range(15):
            publish(records, f"k{number}", f"u{number % 4}", [answers(STORES[1], float(number))])
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        seen = [(row["run_id"], row["row_key"]) for row in paged(records, WANTED, 2)]
        assert len(seen) == len(set(seen))
    thread.join()
    latest = {row["upload_id"]: row["prediction"] for row in paged(records, WANTED, 2)}
    assert latest == {"u-first": 1.0, "u0": 12.0, "u1": 13.0, "u2": 14.0, "u3": 11.0}


def release(version: int) -> Release:
    return Release(
        version=version, use_case="sales", training_run=1, dataset_version=1, upload_seq=1, status="challenger",
        source="file:///x", digest="d", partitions=2, promoted=1, held=1, created_at=datetime.now(UTC),
    )  # fmt: skip


def test_releases_verdicts_and_runs_are_read_from_a_place_on(records: PostgresRecords) -> None:
    verdicts = pd.DataFrame(
        {
            "partition": ["é", "b", "a", "B"],
            "verdict": ["promote", "hold", "hold", "promote"],
            "metric": [1.5, None, 2, 3],
        }
    )
    for version in (1, 2, 3):
        records.add_release(release(version), verdicts)
    assert records.champions() == {}
    records.set_champion("sales", 2)
    assert records.champions() == {"sales": 2}
    assert [each.version for each in records.releases("sales", below=3, limit=1)] == [2]
    assert records.release("sales", 2).status == "champion"
    for version in (0, 4):
        with pytest.raises(NotFound):
            records.release("sales", version)
    first = records.verdicts_after("sales", 2, None, 3)
    assert first["partition"].to_pylist() == ["B", "a", "b"]
    assert first["metric"].to_pylist() == [3, 2, None]
    assert records.verdicts_after("sales", 2, "b", 3)["partition"].to_pylist() == ["é"]
    assert records.verdicts_after("sales", 2, None, 3, "hold")["partition"].to_pylist() == ["a", "b"]
    assert records.verdicts_after("sales", 9, None, 3).num_rows == 0
    runs = [records.open_run(stage, "sales", stage) for stage in (Stage.TRAINING, Stage.SCORING, Stage.TRAINING)]
    records.fail_run(runs[1], "no luck")
    assert [run.run_id for run in records.runs(below=runs[1].run_id)] == [runs[0].run_id]
    assert [run.run_id for run in records.runs(limit=1)] == [runs[1].run_id]
    assert [run.run_id for run in records.runs(status=RunStatus.FAILED)] == [runs[1].run_id]


def test_live_error_is_read_from_a_place_on(records: PostgresRecords) -> None:
    rows = pd.DataFrame(
        {
            "partition": ["b", "a", "a"],
            "metric": ["rmse", "rmse", "rmse"],
            "rows": 4,
            "loss_sum": 16.0,
            "baseline_sum": 64.0,
            "own_rows": 4,
        }
    ).drop_duplicates("partition")
    records.add_upload("sales", Purpose.ACTUALS, "u1", "a.csv", 1, "aa")
    records.save_health(records.open_run(Stage.MONITORING, "sales", "k", upload_id="u1"), rows)
    first = records.health_after("sales", None, 1).to_pylist()
    assert [(row["partition"], row["error"], row["skill"]) for row in first] == [("a", 2.0, 0.5)]
    second = records.health_after("sales", ("a", "rmse"), 5).to_pylist()
    assert [row["partition"] for row in second] == ["b"]
    assert records.health_after("sales", ("b", "rmse"), 5).num_rows == 0
