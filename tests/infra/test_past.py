"""Past runs as estimates read them: units with what they grow with, runs that came to their end, peers."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from infra import metering
from infra.database.operator import Operator
from infra.database.past import past_files, past_jobs, past_units, peers
from infra.database.records import PostgresRecords
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch
from tasks.domain.tenant import Tier
from tests.conftest import MakeRecords
from tests.infra.test_database import models, scores
from tests.infra.test_metering import burn
from tests.samples import sales_use_case, sample_tenant

PARTITIONS = ("store=1,sku=1", "store=1,sku=2")


def job(records: PostgresRecords, number: int, ended: str | None = "done", bundle: bool = True) -> None:
    """A process that takes in a file, trains one batch, promotes and scores."""
    metering.end_shift()
    records.read_process()
    upload, _ = records.add_upload("sales", Purpose.HISTORY, f"up-{number}", f"file-{number}.csv", 1000, "0" * 64)
    run = records.open_run(Stage.INGESTION, "sales", f"ingestion-{number}", upload_id=upload.upload_id)
    records.finish_run(run, {"read": 40, "accepted": 39})
    records.update_upload(upload.upload_id, rows_read=40, rows_accepted=39)

    run = records.open_run(Stage.TRAINING, "sales", f"training-{number}", dataset_version=1)
    batch = Batch(run_id=run.run_id, number=1, bucket=0, partitions=PARTITIONS, rows=403)
    records.plan(run, [batch])
    records.start_batch(batch)
    burn(0.05)
    records.finish_training_batch(batch, models(), bytes_out=900)
    bundle_run = run.run_id if bundle else run.run_id - 1
    receipt = {"partitions": 7, "bundle_run": bundle_run, "contract_hash": "c", "training_version": 2}
    records.finish_run(run, receipt | {"tenant_wide_rows": 300})

    run = records.open_run(Stage.PROMOTION, "sales", f"promotion-{number}")
    records.finish_run(run, {"partitions": 7, "release": number if bundle else None})
    run = records.open_run(Stage.MONITORING, "sales", f"monitoring-{number}", upload_id=upload.upload_id)
    records.finish_run(run, {})
    if ended is not None:
        records.read_process(ended=ended)


@pytest.fixture(scope="module")
def past(make_records: MakeRecords) -> PostgresRecords:
    records = make_records("seasoned")
    job(records, 1)
    job(records, 2, bundle=False)
    job(records, 3, ended="failed")
    job(records, 4, ended=None)
    metering.end_shift()
    return records


def test_units_have_what_they_grow_with(past: PostgresRecords) -> None:
    units = past_units(past.url, "seasoned", "sales", 30)
    assert units["job"].nunique() == 2, "what failed or goes on is not learnt from"
    newest = units[units["job"] == units["job"].iloc[0]].set_index("kind")
    first = units[units["job"] != units["job"].iloc[0]].set_index("kind")
    grows = {kind: (row["partitions"], row["rows"]) for kind, row in first.iterrows()}
    assert grows == {
        "ingestion/rest": (0, 40),
        "training/batch": (1, 400),
        "training/rest": (7, 300),
        "promotion/rest": (7, 0),
        "monitoring/rest": (0, 39),
    }
    assert (newest.loc["training/rest", "partitions"], newest.loc["promotion/rest", "partitions"]) == (0, 0)
    assert first.loc["training/batch", "cpu_s"] >= 0.05
    assert first.loc["training/batch", "bytes_out"] == 900
    assert first["recipe"].dropna().unique().tolist() == ["c/2"]
    assert units["cpu_s"].dtype == units["rows"].dtype == "float64"


def test_a_scoring_run_grows_with_partitions_and_rows(make_records: MakeRecords) -> None:
    records = make_records("scored")
    metering.end_shift()
    upload, _ = records.add_upload("sales", Purpose.SCORING, "up", "file.csv", 10, "0" * 64)
    run = records.open_run(Stage.SCORING, "sales", "k", upload_id=upload.upload_id, release_version=1)
    batch = Batch(run_id=run.run_id, number=1, bucket=0, partitions=PARTITIONS, rows=2)
    records.plan(run, [batch])
    records.start_batch(batch)
    records.finish_scoring_batch(batch, pa.table(scores([1.0, 2.0])))
    records.publish_scores(run, {"partitions": 2, "rows": 2})
    records.read_process(ended="done")
    units = past_units(records.url, "scored", "sales", 30).set_index("kind")
    assert {kind: (row["partitions"], row["rows"]) for kind, row in units.iterrows()} == {
        "scoring/batch": (2, 2),
        "scoring/rest": (2, 2),
    }


def test_runs_are_the_newest_first(past: PostgresRecords) -> None:
    jobs = past_jobs(past.url, "seasoned", "sales", 30)
    units = past_units(past.url, "seasoned", "sales", 30)
    assert jobs["age"].tolist() == [0, 1]
    assert list(jobs["job"]) == list(dict.fromkeys(units["job"]))
    explained = jobs["job"].map(units.groupby("job")["cpu_s"].sum())
    assert (jobs["cpu_s"] >= explained - 1e-6).all()
    assert (jobs["wall_s"] > 0).all()
    assert (jobs["peak_mb"] > 10).all()
    assert len(past_jobs(past.url, "seasoned", "sales", 1)) == 1
    assert past_jobs(past.url, "seasoned", "other", 30).empty
    assert past_units(past.url, "seasoned", "other", 30).empty


def test_a_tenant_sees_its_own_past_only(past: PostgresRecords, make_records: MakeRecords) -> None:
    stranger = make_records("stranger")
    assert past_units(stranger.url, "seasoned", "sales", 30).empty
    assert past_jobs(stranger.url, "seasoned", "sales", 30).empty


def test_files_that_were_read(past: PostgresRecords) -> None:
    files = past_files(past.url, "seasoned", "sales", 3)
    assert files.to_dict("list") == {
        "filename": ["file-4.csv", "file-3.csv", "file-2.csv"], "size_bytes": [1000] * 3, "rows_read": [40] * 3,
    }  # fmt: skip


def test_peers_by_tier_kind_and_size(past: PostgresRecords, operator: Operator) -> None:
    operator.onboard(sample_tenant("untrained", sales_use_case(), tier=Tier.FREE))
    found, urls = peers(operator.cluster)
    mine = found[found["tenant"] == "seasoned"].to_dict("records")
    assert mine == [
        {"tenant": "seasoned", "use_case": "sales", "tier": "standard", "kind": "regression", "rows_per_partition": 403}
    ]
    assert "untrained" not in set(found["tenant"])
    assert urls[None] == operator.cluster.operator_url
    assert isinstance(found, pd.DataFrame)
