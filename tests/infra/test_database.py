"""One tenant's records: uploads, runs, batches, scores, releases, health, against a real server."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pytest

from infra.database.frames import copy_predictions
from infra.database.records import PostgresRecords
from tasks.domain.errors import Busy, DatabaseUnavailable, InvalidDefinition, NotFound
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Release, Run, RunStatus, UploadStatus
from tests.conftest import MakeRecords

NAMES: Iterator[str] = (f"tenant-{number}" for number in count(1))


@pytest.fixture
def records(make_records: MakeRecords) -> PostgresRecords:
    """Records of a tenant that no other test uses."""
    return make_records(next(NAMES))


def planned(records: PostgresRecords, stage: Stage, key: str = "k", upload_id: str | None = None) -> tuple[Run, Batch]:
    run = records.open_run(stage, "sales", key, upload_id=upload_id, release_version=2)
    batch = Batch(run_id=run.run_id, number=1, bucket=3, partitions=("store=1,sku=1", "store=1,sku=2"), rows=4)
    records.plan(run, [batch])
    return run, batch


def models(**columns: object) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "partition": ["store=1,sku=2", "store=1,sku=1"],
            "outcome": ["trained", "rejected"],
            "estimator": ["lightgbm", None],
            "rows": [400, 3],
            "metric": [1.5, np.nan],
            "source_run": [7, None],
        }
    )
    return frame.assign(**columns)


def scores(values: list[float], answer: str = "own") -> pa.Table:
    size = len(values)
    return pa.table(
        {
            "partition": ["store=1,sku=1"] * size,
            "row_key": [f'1,1,2026-01-{day + 1:02d} "quoted", comma' for day in range(size)],
            "prediction": pa.array(values, pa.float64()),
            "label": pa.array([None, "", *["yes"] * size][:size], pa.string()),
            "probabilities": pa.array([[0.25, 0.75], None, *[[1.0]] * size][:size], pa.list_(pa.float64())),
            "baseline": pa.array([[1e-9]] * size, pa.list_(pa.float64())),
            "answer": [answer] * size,
            "fallback": [False] * size,
            "model_run": pa.array([7] * size, pa.int64()),
        }
    )


def test_equal_content_is_one_upload(records: PostgresRecords) -> None:
    first, new = records.add_upload("sales", Purpose.HISTORY, "u1", "a.csv", 10, "aa")
    again, new_again = records.add_upload("sales", Purpose.HISTORY, "u1", "b.csv", 10, "aa")
    assert (new, new_again) == (True, False)
    assert first == again
    assert first.seq == 1
    with pytest.raises(NotFound, match="rent"):
        records.add_upload("rent", Purpose.HISTORY, "u2", "a.csv", 10, "aa")


def test_uploads_of_two_threads_are_numbered_without_gaps(records: PostgresRecords) -> None:
    def add(prefix: str) -> None:
        for number in range(15):
            # Every second upload is the same in both threads.
            name = f"{prefix}{number}" if number % 2 else f"both{number}"
            records.add_upload("sales", Purpose.HISTORY, name, "a.csv", 1, "aa")

    threads = [threading.Thread(target=add, args=(prefix,)) for prefix in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    uploads = records.uploads("sales")
    assert sorted(upload.seq for upload in uploads) == list(range(1, 8 + 2 * 7 + 1))


def test_an_upload_is_updated(records: PostgresRecords) -> None:
    records.add_upload("sales", Purpose.HISTORY, "u1", "a.csv", 10, "aa")
    changed = records.update_upload("u1", status=UploadStatus.INGESTED, rows_read=5, dataset_version=2)
    assert (changed.status, changed.rows_read, changed.dataset_version) == (UploadStatus.INGESTED, 5, 2)
    assert records.upload("u1") == changed
    with pytest.raises(NotFound):
        records.upload("u2")
    with pytest.raises(NotFound):
        records.update_upload("u2", rows_read=1)


def test_a_run_of_the_same_key_is_resumed(records: PostgresRecords) -> None:
    run = records.open_run(Stage.TRAINING, "sales", "k", dataset_version=4)
    failed = records.fail_run(run, "no luck")
    assert (failed.status, failed.error) == (RunStatus.FAILED, "no luck")
    again = records.open_run(Stage.TRAINING, "sales", "k", dataset_version=4)
    assert (again.run_id, again.attempts, again.status, again.error) == (run.run_id, 2, RunStatus.RUNNING, None)
    receipt = {"rows": np.int64(3), "metric": float("nan"), "nested": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}
    done = records.finish_run(again, receipt)
    assert done.receipt["rows"] == 3
    assert done.receipt["metric"] is None
    third = records.open_run(Stage.TRAINING, "sales", "k")
    assert (third.status, third.attempts, third.receipt) == (RunStatus.FINISHED, 3, done.receipt)
    assert records.fail_run(third, "late").status is RunStatus.FINISHED
    other = records.open_run(Stage.SCORING, "sales", "other")
    assert [run.run_id for run in records.runs("sales")] == [other.run_id, run.run_id]
    assert [run.run_id for run in records.runs(stage=Stage.TRAINING)] == [run.run_id]


def test_a_plan_is_stored_once_and_finished_batches_are_not_pending(records: PostgresRecords) -> None:
    run, batch = planned(records, Stage.TRAINING)
    second = batch.model_copy(update={"number": 2})
    records.plan(run, [batch, second])
    assert records.batches(run) == [batch]
    records.start_batch(batch)
    records.finish_training_batch(batch, models())
    assert records.batches(run, pending=True) == []
    with pytest.raises(NotFound, match="batch 2"):
        records.finish_training_batch(second, models())


def test_settled_partitions_are_stored_with_the_plan(records: PostgresRecords) -> None:
    run, _ = planned(records, Stage.TRAINING)
    assert records.planned(run)
    empty = records.open_run(Stage.TRAINING, "sales", "nothing to train")
    assert not records.planned(empty)
    for _ in range(2):
        records.plan(empty, [], models(outcome=["reused", "failed"]))
    assert records.planned(empty)
    assert records.batches(empty) == []
    assert records.partition_models(empty)["batch"].tolist() == [0, 0]
    assert records.partition_models(empty, ["store=1,sku=2", "other"])["outcome"].tolist() == ["reused"]
    assert records.failed_partitions(empty) == 1
    assert records.failed_partitions(run) == 0
    assert records.run(empty.run_id).key == "nothing to train"
    with pytest.raises(NotFound):
        records.run(empty.run_id + 1_000)


def test_a_training_batch_is_stored_exactly_once(records: PostgresRecords) -> None:
    run, batch = planned(records, Stage.TRAINING)
    records.finish_training_batch(batch, models())
    records.finish_training_batch(batch, models(rows=[401, 3]))
    stored = records.partition_models(run)
    assert stored["partition"].tolist() == ["store=1,sku=1", "store=1,sku=2"]
    assert stored["rows"].tolist() == [3, 401]
    assert stored["metric"].isna().tolist() == [True, False]
    assert stored["source_run"].tolist() == [pd.NA, 7]
    assert stored["estimator"].isna().tolist() == [True, False]
    assert stored.dtypes[["partition", "metric", "rows"]].astype(str).tolist() == ["str", "float64", "int64"]


def test_a_failing_batch_leaves_nothing(records: PostgresRecords) -> None:
    run, batch = planned(records, Stage.SCORING)
    broken = scores([1.0, 2.0]).set_column(6, "answer", pa.array(["own", None]))
    with pytest.raises(Exception, match="answer"):
        records.finish_scoring_batch(batch, broken)
    assert records.batches(run, pending=True) == [batch]
    records.finish_scoring_batch(batch, scores([1.0]))
    records.publish_scores(run, {"rows": 1})
    assert records.predictions("sales")["prediction"].tolist() == [1.0]


def test_scores_are_stored_once_and_seen_when_published(records: PostgresRecords) -> None:
    records.add_upload("sales", Purpose.SCORING, "u1", "a.csv", 10, "aa")
    run, batch = planned(records, Stage.SCORING, upload_id="u1")
    records.finish_scoring_batch(batch, scores([9.0, 9.0]))
    records.finish_scoring_batch(batch, scores([1.5, 1 / 3, float("nan")]))
    assert records.predictions("sales").empty
    done = records.publish_scores(run, {"rows": 3})
    assert done.status is RunStatus.FINISHED
    seen = records.predictions("sales").sort_values("row_key")
    assert seen["prediction"].tolist()[:2] == [1.5, 1 / 3]
    assert np.isnan(seen["prediction"].tolist()[2])
    assert seen["row_key"].tolist() == scores([1, 2, 3])["row_key"].to_pylist()
    assert seen["probabilities"].tolist() == [[0.25, 0.75], None, [1.0]]
    assert seen["baseline"].tolist() == [[1e-9]] * 3
    assert [None if pd.isna(label) else label for label in seen["label"]] == [None, "", "yes"]
    assert seen[["release_version", "upload_id", "use_case"]].iloc[0].tolist() == [2, "u1", "sales"]
    assert len(records.predictions("sales", limit=2)) == 2


def test_scored_rows_are_counted_by_answer(records: PostgresRecords) -> None:
    verdicts = pd.DataFrame({"partition": ["store=1,sku=1"], "verdict": ["promote"], "reason": ["x"]})
    records.add_release(release(2), verdicts)
    run, first = planned(records, Stage.SCORING)
    assert records.scored(run).empty
    records.finish_scoring_batch(first, scores([9.0]))
    unknown = scores([1.0], "naive").set_column(0, "partition", pa.array(["store=9,sku=9"]))
    records.finish_scoring_batch(first, pa.concat_tables([scores([1.0, 2.0]), scores([1.0], "naive"), unknown]))
    found = records.scored(run)
    assert found[["partition", "answer", "rows", "known"]].values.tolist() == [
        ["store=1,sku=1", "naive", 1, True],
        ["store=1,sku=1", "own", 2, True],
        ["store=9,sku=9", "naive", 1, False],
    ]


def test_a_later_run_of_the_upload_takes_the_place_of_the_earlier(records: PostgresRecords) -> None:
    for upload_id in ("u1", "u2"):
        records.add_upload("sales", Purpose.SCORING, upload_id, "a.csv", 10, upload_id)
    runs = []
    for key, upload_id, value in (
        ("a", "u1", 1.0),
        ("b", "u2", 2.0),
        ("c", "u1", 3.0),
        ("d", None, 4.0),
        ("e", None, 5.0),
    ):
        run, batch = planned(records, Stage.SCORING, key, upload_id)
        records.finish_scoring_batch(batch, scores([value]))
        records.publish_scores(run, {"rows": 1})
        runs.append(run)
    assert sorted(records.predictions("sales")["prediction"]) == [2.0, 3.0, 5.0]
    records.publish_scores(runs[0], {"rows": 1})  # an old run, published again, stays superseded
    assert sorted(records.predictions("sales")["prediction"]) == [2.0, 3.0, 5.0]


def test_publishing_needs_a_release(records: PostgresRecords) -> None:
    run = records.open_run(Stage.SCORING, "sales", "k")
    with pytest.raises(ValueError, match="release"):
        records.publish_scores(run, {})
    assert records.runs()[0].status is RunStatus.RUNNING


def release(version: int, status: str = "challenger") -> Release:
    return Release(
        version=version, use_case="sales", training_run=1, dataset_version=1, upload_seq=1, status=status,
        source="file:///x", digest="d", partitions=2, promoted=1, held=1, created_at=datetime.now(UTC),
    )  # fmt: skip


def test_one_release_is_champion(records: PostgresRecords) -> None:
    verdicts = pd.DataFrame(
        {"partition": ["b", "a"], "verdict": ["promote", "hold"], "reason": "x", "fallback": [False, True]}
    )
    for version in (1, 2, 2):
        records.add_release(release(version), verdicts)
    for version in (1, 2, 1):
        records.set_champion("sales", version)
        assert [found.version for found in records.releases("sales") if found.status == "champion"] == [version]
    assert [found.version for found in records.releases("sales")] == [2, 1]
    assert records.verdicts("sales", 2)["partition"].tolist() == ["a", "b"]
    with pytest.raises(NotFound):
        records.set_champion("sales", 3)
    assert [found.status for found in records.releases("sales")] == ["retired", "champion"]


def test_health_adds_up_and_the_last_run_of_an_upload_counts(records: PostgresRecords) -> None:
    rows = pd.DataFrame(
        {
            "partition": ["a", "b"],
            "rows": [4, 1],
            "metric": "rmse",
            "loss_sum": [16.0, 1.0],
            "baseline_sum": [64.0, 0.0],
            "own_rows": [4, 0],
        }
    )
    for upload_id, key in (("u1", "1"), ("u1", "2"), ("u2", "3")):
        records.add_upload("sales", Purpose.ACTUALS, upload_id, "a.csv", 10, upload_id)
        records.save_health(records.open_run(Stage.MONITORING, "sales", key, upload_id=upload_id), rows)
    health = records.health("sales").set_index("partition")
    assert health["rows"].to_dict() == {"a": 8, "b": 2}
    assert health.loc["a", ["error", "baseline_error", "skill"]].tolist() == [2.0, 4.0, 0.5]
    assert np.isnan(health.loc["b", "skill"])
    assert records.runs(stage=Stage.MONITORING)[0].status is RunStatus.FINISHED


def test_a_use_case_is_held_by_one_run(records: PostgresRecords) -> None:
    with records.lock("sales"):
        with pytest.raises(Busy, match="sales"), records.lock("sales"):
            pass
        with records.lock("another"):
            pass
    with records.lock("sales"):
        pass


HOLD = """
import pickle, sys, time
records = pickle.load(sys.stdin.buffer)
with records.lock("sales"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_frees_its_lock(records: PostgresRecords) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(pickle.dumps(records))
        holder.stdin.close()
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy), records.lock("sales"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    for _ in range(100):  # the server notices within a moment
        try:
            with records.lock("sales"):
                return
        except Busy:
            threading.Event().wait(0.05)
    pytest.fail("the lock outlived the process that held it")


def test_a_database_that_is_down_is_tried_again(records: PostgresRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("infra.database.connect.time.sleep", pauses.append)  # do not really wait
    nobody = PostgresRecords("postgresql+psycopg://a:hidden@127.0.0.1:1/orchard", records.tenant)
    with pytest.raises(DatabaseUnavailable) as caught:
        nobody.runs()
    assert sum(pauses) == pytest.approx(10)
    assert "hidden" not in str(caught.value)
    pauses.clear()
    with pytest.raises(DatabaseUnavailable), nobody.lock("sales"):
        pass
    assert sum(pauses) == pytest.approx(10)


def test_a_connection_lost_in_the_middle_of_a_batch_is_made_up_for(
    records: PostgresRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter(["SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 1"])

    def load(connection: psycopg.Connection, *arguments: Any) -> int:
        loaded = copy_predictions(connection, *arguments)
        connection.execute(next(losses))
        return loaded

    monkeypatch.setattr("infra.database.scores.copy_predictions", load)  # the server really cuts the connection
    run, batch = planned(records, Stage.SCORING)
    records.finish_scoring_batch(batch, scores([1.0, 2.0]))
    records.publish_scores(run, {})
    assert sorted(records.predictions("sales")["prediction"]) == [1.0, 2.0]
    assert records.scored(run)["rows"].tolist() == [2]


def test_a_refused_login_is_not_tried_again(records: PostgresRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.database.connect.time.sleep", lambda wait_s: pytest.fail("it waited"))
    wrong = PostgresRecords(records.url.replace(":", ":x", 2).replace(":x//", "://"), records.tenant)
    with pytest.raises(InvalidDefinition, match="refuses"):
        wrong.runs()
