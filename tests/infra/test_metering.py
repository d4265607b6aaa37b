"""What is booked of a unit of work: once, with its outcome, and for good."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from infra import metering
from infra.database.connect import engine
from infra.database.operator import Operator
from infra.database.records import PostgresRecords
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Run
from tasks.domain.tenant import Tier
from tests.conftest import MakeRecords
from tests.infra.test_database import models, scores
from tests.samples import sample_tenant


def burn(seconds: float) -> None:
    """Uses so much CPU on this thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


def usage(records: PostgresRecords) -> dict[str, dict[str, object]]:
    with engine(records.url).connect() as connection:
        found = connection.execute(text("SELECT * FROM usage ORDER BY at, unit")).mappings()
        return {row["unit"]: dict(row) for row in found}


def begin(records: PostgresRecords, stage: Stage = Stage.TRAINING, key: str = "k") -> tuple[Run, Batch]:
    run = records.open_run(stage, "sales", key, dataset_version=1, release_version=1)
    batch = Batch(run_id=run.run_id, number=1, bucket=0, partitions=("store=1,sku=1", "store=1,sku=2"), rows=20)
    records.plan(run, [batch], models().iloc[:1].assign(partition="store=9,sku=9", outcome="reused"))
    return run, batch


@pytest.fixture(autouse=True)
def shift() -> None:
    metering.end_shift()


def test_a_batch_has_the_cpu_of_its_thread_and_the_run_has_the_rest(make_records: MakeRecords) -> None:
    records = make_records("metered")
    run, batch = begin(records)
    burn(0.2)

    def work() -> None:
        records.start_batch(batch)
        burn(0.3)
        records.finish_training_batch(batch, models(), bytes_in=100, bytes_out=10)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    records.finish_run(run, {"partitions": 2})
    found = usage(records)
    done, rest = found[f"run/{run.run_id}/batch/1/1"], found[f"run/{run.run_id}/rest/1"]
    named = ("use_case", "stage", "tier", "batch", "run_id", "release_version")
    assert tuple(done[name] for name in named) == ("sales", "training", "standard", 1, run.run_id, 1)
    assert (done["rows_in"], done["models_trained"], done["bytes_in"], done["bytes_out"]) == (403, 1, 100, 10)
    assert 0.3 <= float(str(done["cpu_s"])) < 0.45
    assert 0.2 <= float(str(rest["cpu_s"])) < 0.45  # and not the batch's again
    assert rest["models_reused"] == 1
    assert done["process"] == rest["process"]
    assert float(str(done["wall_s"])) >= 0.3
    assert float(str(done["peak_mb"])) > 10


def test_what_is_finished_twice_is_booked_once(make_records: MakeRecords) -> None:
    records = make_records("booked-once")
    run, batch = begin(records)
    for _ in range(2):
        records.start_batch(batch)
        records.finish_training_batch(batch, models())
    for _ in range(2):
        records.finish_run(run, {})
    assert list(usage(records)) == [f"run/{run.run_id}/batch/1/1", f"run/{run.run_id}/rest/1"]


def test_what_does_not_reach_the_database_is_not_booked(make_records: MakeRecords) -> None:
    records = make_records("unbooked")
    run, batch = begin(records, Stage.SCORING)
    records.start_batch(batch)
    with pytest.raises(Exception, match="answer"):
        records.finish_scoring_batch(batch, scores([1.0]).rename_columns({"answer": "nowhere"}))
    assert usage(records) == {}
    records.start_batch(batch)
    records.finish_scoring_batch(batch, scores([1.0, 2.0]), bytes_in=5)
    done = usage(records)[f"run/{run.run_id}/batch/1/2"]
    assert (done["rows_in"], done["rows_out"], done["bytes_in"]) == (20, 2, 5)


@pytest.mark.parametrize("statement", ["UPDATE usage SET cpu_s = 0", "DELETE FROM usage", "DELETE FROM processes"])
def test_a_tenant_takes_nothing_back(make_records: MakeRecords, statement: str) -> None:
    records = make_records("regretful")
    run, _ = begin(records)
    records.finish_run(run, {})
    with engine(records.url).connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
        connection.execute(text(statement))


def test_nobody_uses_less_than_nothing(make_records: MakeRecords) -> None:
    records = make_records("regretful")
    begin(records)
    statement = (
        "INSERT INTO usage (tenant, unit, use_case, stage, process, tier, cpu_s, wall_s, rows_out)"
        " VALUES ('regretful', 'x', 'sales', 'scoring', 'p', 'standard', 0, 0, -1000000)"
    )
    with engine(records.url).connect() as connection, pytest.raises(IntegrityError, match="check constraint"):
        connection.execute(text(statement))


def test_a_process_is_read_again_and_again_under_one_name(make_records: MakeRecords) -> None:
    records = make_records("observed")
    begin(records)
    records.read_process(job_id=3)
    burn(0.2)
    records.read_process(job_id=3, ended="done")
    metering.end_shift()
    records.read_process(job_id=4)
    with engine(records.url).connect() as connection:
        rows = connection.execute(text("SELECT * FROM processes ORDER BY job_id")).mappings().all()
    assert [(row["job_id"], row["ended"], row["use_case"]) for row in rows] == [(3, "done", "sales"), (4, None, "")]
    assert rows[0]["cpu_s"] >= 0.2
    assert rows[1]["cpu_s"] < 0.2  # the shift before is not in it
    assert rows[0]["read_at"] > rows[0]["started_at"]


def test_a_change_of_tier_is_kept(operator: Operator) -> None:
    tenant = sample_tenant("climber")
    for tier in (Tier.FREE, Tier.FREE, Tier.PREMIUM, Tier.FREE):
        operator.onboard(tenant.model_copy(update={"tier": tier}))
    with engine(operator.cluster.operator_url).connect() as connection:
        query = text("SELECT tier FROM memberships WHERE tenant = 'climber' ORDER BY since")
        assert connection.scalars(query).all() == ["free", "premium", "free"]


def test_programs_are_nobodys_unless_they_tell_for_themselves() -> None:
    program = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"]
    before = metering.idle_cpu_s()
    subprocess.run(program, check=True)
    assert metering.idle_cpu_s() - before >= 0.3
    before = metering.idle_cpu_s()
    with metering.booked_elsewhere():
        subprocess.run(program, check=True)
    assert metering.idle_cpu_s() - before < 0.3


def test_whoever_has_the_tenants_login_cannot_make_work_cheaper(make_records: MakeRecords) -> None:
    """Not by dates before prices, by another tier, by taking back what was read, nor by names that work will need."""
    records = make_records("cheat")
    run, batch = begin(records)
    forged = f"run/{run.run_id}/batch/1/1"
    with engine(records.url).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO usage (tenant, unit, use_case, stage, process, tier, at, cpu_s, wall_s)"
                " VALUES ('cheat', :unit, 'sales', 'training', 'none', 'gratis', '1999-01-01', 0, 0)"
            ),
            {"unit": forged},
        )
    records.read_process()
    with engine(records.url).begin() as connection:
        connection.execute(text("UPDATE processes SET cpu_s = 0, read_at = '1999-01-01' WHERE tenant = 'cheat'"))
        read = connection.execute(
            text("SELECT cpu_s, read_at > now() - interval '1 minute', tier FROM processes")
        ).one()
    assert read[0] > 0
    assert tuple(read[1:]) == (True, "standard")

    records.start_batch(batch)
    burn(0.2)
    records.finish_training_batch(batch, models(), bytes_in=1, bytes_out=1)
    found = usage(records)
    assert (found[forged]["tier"], found[forged]["cpu_s"]) == ("standard", 0)
    assert found[forged]["at"].year > 2000  # type: ignore[attr-defined]
    [true] = [row for unit, row in found.items() if unit.startswith(f"{forged}/")]
    assert float(str(true["cpu_s"])) > 0.15


def test_no_row_of_whoever_has_the_tenants_login_hides_work(make_records: MakeRecords) -> None:
    """Neither under the names that work will need, nor by what it says of runs, batches and processes."""
    records = make_records("hider")
    records.read_process()
    run, batch = begin(records, Stage.SCORING)
    records.start_batch(batch)
    unit, process = f"run/{run.run_id}/batch/1/1", metering.shift().name
    forged = text(
        "INSERT INTO usage (tenant, unit, use_case, stage, process, tier, cpu_s, wall_s)"
        " VALUES ('hider', :unit, 'sales', 'scoring', :process, 'standard', 0, 0)"
    )
    with engine(records.url).begin() as connection:
        connection.execute(forged, [{"unit": unit, "process": process}])
        connection.execute(forged, [{"unit": f"{unit}/{process}", "process": "other"}])
        connection.execute(text("UPDATE runs SET stage = 'ingestion'"))
        connection.execute(text("UPDATE batches SET finished_at = now()"))
    for _ in range(2):
        records.finish_scoring_batch(batch, scores([1.0, 2.0]))
    done = [row for row in usage(records).values() if row["rows_out"]]
    assert [(row["stage"], row["rows_out"]) for row in done] == [("scoring", 2)]

    records.read_process(ended="done")
    with engine(records.url).begin() as connection:
        connection.execute(text("UPDATE processes SET ended = 'failed'"))
        assert connection.scalars(text("SELECT ended FROM processes")).all() == ["done"]
    excused = (
        "INSERT INTO usage (tenant, unit, use_case, stage, process, tier, cpu_s, wall_s)"
        " VALUES ('hider', 'x', 'sales', 'waste', 'p', 'standard', 1000, 0)"
    )
    with engine(records.url).connect() as connection, pytest.raises(IntegrityError, match="check constraint"):
        connection.execute(text(excused))
