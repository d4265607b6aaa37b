"""Rows that are removed when they are old: of one tenant, of what was replaced, and no more."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from infra.database.records import PostgresRecords
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Run
from tests.conftest import MakeRecords
from tests.infra.test_database import models, planned, release, scores


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def both(make_records: MakeRecords) -> tuple[PostgresRecords, PostgresRecords]:
    return make_records("ages"), make_records("ages-too")


def publish(records: PostgresRecords, upload_id: str, key: str) -> Run:
    run, batch = planned(records, Stage.SCORING, key, upload_id)
    records.finish_scoring_batch(batch, scores([1.0, 2.0]))
    return records.publish_scores(run, {"rows": 2})


def test_predictions_that_were_replaced_long_ago_go(both: tuple[PostgresRecords, PostgresRecords]) -> None:
    records, other = both
    for each in both:
        for upload_id in ("u1", "u2"):
            each.add_upload("sales", Purpose.SCORING, upload_id, "a.csv", 10, upload_id)
    begun = now()
    first = publish(records, "u1", "k1")
    publish(records, "u2", "k2")
    before = now()
    second = publish(records, "u1", "k3")
    after = now()
    publish(records, "u1", "k4")
    for run in ("k1", "k3"):
        publish(other, "u1", run)
    assert records.superseded_scores("sales", begun) == []
    assert records.superseded_scores("sales", before) == [], "what replaced it is younger"
    assert records.superseded_scores("sales", after) == [first.run_id]
    assert records.superseded_scores("sales", now()) == [first.run_id, second.run_id]
    assert records.superseded_scores("returns", now()) == []

    current, others = records.predictions("sales"), other.predictions("sales")
    assert records.remove_scores([first.run_id], dry_run=True) == 2
    assert records.remove_scores([first.run_id], dry_run=False) == 2
    assert records.remove_scores([first.run_id], dry_run=False) == records.remove_scores([], dry_run=False) == 0
    assert records.superseded_scores("sales", after) == []
    assert records.batches(first) == []
    assert records.run(first.run_id) == first, "its receipt stays"
    assert records.predictions("sales").equals(current)
    assert other.predictions("sales").equals(others)
    assert other.superseded_scores("sales", now())


def test_a_run_that_was_never_finished_can_be_planned_anew(both: tuple[PostgresRecords, PostgresRecords]) -> None:
    records, _ = both
    run, batch = planned(records, Stage.SCORING, "cut-off")
    records.finish_scoring_batch(batch, scores([1.0]))
    assert records.remove_scores([run.run_id], dry_run=False) == 1
    assert not records.planned(run)
    records.plan(run, [batch])
    assert records.batches(run, pending=True) == [batch]


def test_models_of_old_runs_go_and_their_receipts_say_so(both: tuple[PostgresRecords, PostgresRecords]) -> None:
    records, other = both
    runs = []
    for each in both:
        run, _ = planned(each, Stage.TRAINING, "t1")
        batch = Batch(run_id=run.run_id, number=1, bucket=3, partitions=("store=1,sku=1", "store=1,sku=2"), rows=4)
        each.finish_training_batch(batch, models())
        runs.append(each.finish_run(run, {"trained": 1}))
    records.remove_models([run.run_id for run in runs])  # also another tenant's, as a mistake would
    assert len(records.partition_models(runs[0])) == 0
    assert records.batches(runs[0]) == []
    assert records.run(runs[0].run_id).receipt == {"trained": 1, "removed": "models"}
    assert len(other.partition_models(runs[1])) == 2
    assert other.run(runs[1].run_id).receipt == {"trained": 1}


def test_a_release_loses_its_verdicts(both: tuple[PostgresRecords, PostgresRecords]) -> None:
    records, other = both
    for each in both:
        for version in (1, 2):
            each.add_release(release(version, "retired"), models(verdict="promote", reason="x"))
    records.remove_release("sales", 1)
    assert {each.version: each.status for each in records.releases("sales")} == {1: "removed", 2: "retired"}
    assert [len(records.verdicts("sales", version)) for version in (1, 2)] == [0, 2]
    assert [len(other.verdicts("sales", version)) for version in (1, 2)] == [2, 2]
