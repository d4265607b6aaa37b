"""What was spent, as it is asked at each batch: metered work at the prices of its time, and the limits it meets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text

from infra import metering
from infra.database.audit import Audit
from infra.database.budgets import Budgets, Held
from infra.database.connect import transact
from infra.database.operator import Operator
from infra.database.queue import Queue
from infra.database.records import PostgresRecords
from infra.database.slots import busy_slots
from infra.database.spending import month_of, month_start
from tasks.domain.budget import Budget, Level, Period
from tasks.domain.errors import NotFound
from tasks.domain.job import JobKind
from tasks.domain.names import Stage
from tasks.domain.run import RunStatus
from tasks.domain.tenant import Isolation, Tier, TierPolicy
from tests.conftest import MakeRecords
from tests.infra.test_metering import begin
from tests.priced import prices_kept, set_cpu_prices
from tests.samples import sales_use_case, sample_tenant

NOW = datetime.now(UTC)
MONTH = month_of(NOW)


@pytest.fixture
def budgets(operator: Operator) -> Iterator[Budgets]:
    """Those of the session's cluster: none yet, and a CPU second costs 1 EUR."""
    for table in ("budgets", "budget_shares", "jobs"):
        _sql(operator.cluster.operator_url, f"DELETE FROM {table}")
    metering.end_shift()
    with prices_kept(operator.cluster):
        for tier in Tier:
            set_cpu_prices(operator.cluster, tier)
        yield Budgets(operator.cluster)


def _sql(url: str, statement: str, **values: object) -> None:
    transact(url, lambda connection: connection.execute(text(statement), values))


def work(
    budgets: Budgets, tenant: str, cpu_s: float, unit: str, *, url: str = "", at: datetime | None = None, **columns: Any
) -> None:
    """Books finished work."""
    known = {"use_case": "sales", "stage": "training", "process": unit, "tier": "standard", "wall_s": 0} | columns
    values = {"tenant": tenant, "unit": unit, "cpu_s": cpu_s, "at": at or datetime.now(UTC), **known}
    names = ", ".join(values)
    into = f"INSERT INTO usage ({names}) VALUES ({', '.join(f':{name}' for name in values)})"
    _sql(url or budgets.cluster.operator_url, into, **values)


def process(budgets: Budgets, tenant: str, name: str, cpu_s: float, use_case: str = "sales") -> None:
    into = "INSERT INTO processes (tenant, process, use_case, tier, cpu_s) VALUES (:t, :p, :u, 'standard', :c)"
    _sql(budgets.cluster.operator_url, into, t=tenant, p=name, u=use_case, c=cpu_s)


def budget(tenant: str | None, hard: str, use_case: str | None = None, **changes: Any) -> Budget:
    limits = {"hard": Decimal(hard), "soft": Decimal(hard) * Decimal("0.8")}
    return Budget(tenant=tenant, use_case=use_case, currency="EUR", **(limits | changes))


def spent(records: PostgresRecords, use_case: str | None = None) -> list[Decimal]:
    return [each.spent for each in records.standings(use_case)]


def test_work_costs_what_it_cost_when_it_was_done(make_records: MakeRecords, budgets: Budgets) -> None:
    records = make_records("dated")
    start = month_start(NOW)
    changed = start + (NOW - start) / 2
    set_cpu_prices(budgets.cluster, "standard", {"2020-01-01": "1", changed.isoformat(): "3"})
    budgets.set(budget("dated", "1000"))
    for number, at in enumerate((start - timedelta(seconds=1), start, changed - timedelta(seconds=1), changed)):
        work(budgets, "dated", 10**number, f"u{number}", at=at)
    # 1 in the month before; 10 + 100 at the old price; 1,000 at the new one
    assert spent(records) == [Decimal(10 + 100 + 3 * 1000)]


def test_predictions_of_scoring_and_online_requests_are_paid_for(make_records: MakeRecords, budgets: Budgets) -> None:
    records = make_records("asked")
    budgets.set(budget("asked", "1000"))
    for stage, rows in (("scoring", 1000), ("online", 500), ("ingestion", 7000)):
        work(budgets, "asked", 0, stage, stage=stage, rows_out=rows)
    assert spent(records) == [Decimal("1.5")]


def test_what_a_process_used_beside_its_finished_work_counts_too(make_records: MakeRecords, budgets: Budgets) -> None:
    records = make_records("wasteful")
    budgets.set(budget("wasteful", "1000"))
    process(budgets, "wasteful", "killed", 30)
    process(budgets, "wasteful", "explained", 5)
    work(budgets, "wasteful", 12, "a", process="killed")
    work(budgets, "wasteful", 6, "b", process="explained")  # more than at the latest reading
    assert spent(records) == [Decimal(30 + 6)]


def test_a_budget_counts_what_it_covers(make_records: MakeRecords, budgets: Budgets) -> None:
    both = sample_tenant("two-fold", sales_use_case(), sales_use_case(id="stock"))
    records = make_records(both)
    make_records("bystander")
    for each in (budget("two-fold", "100"), budget("two-fold", "50", "stock"), budget("bystander", "1")):
        budgets.set(each)
    work(budgets, "two-fold", 3, "a")
    work(budgets, "two-fold", 4, "b", use_case="stock")
    work(budgets, "bystander", 1000, "c")
    assert spent(records) == [Decimal(7), Decimal(4)]
    assert spent(records, "sales") == [Decimal(7)]
    assert records.excess("stock") is None
    work(budgets, "two-fold", 46, "d", use_case="stock")
    excess = records.excess("stock")
    assert excess is not None
    assert (excess.budget.use_case, excess.spent) == ("stock", Decimal(50))
    assert records.excess("sales") is None
    operators = {each.budget.scope: each.spent for each in budgets.standings(budgets.all("two-fold"))}
    assert operators == {"two-fold": Decimal(53), "two-fold stock": Decimal(50)}


def test_a_budget_per_run_counts_all_attempts_of_that_run(make_records: MakeRecords, budgets: Budgets) -> None:
    records = make_records("runner")
    budgets.set(budget("runner", "10", period=Period.RUN))
    run, batch = begin(records)
    work(budgets, "runner", 500, "elsewhere")
    later = run.started_at + timedelta(seconds=1)
    work(budgets, "runner", 4, "first", run_id=run.run_id, at=later)
    assert records.excess("sales") is None  # no run is meant
    assert records.excess("sales", run) is None
    work(budgets, "runner", 6, "second", run_id=run.run_id, at=later)
    excess = records.excess("sales", run)
    assert excess is not None
    assert (excess.about, excess.spent) == (f"run {run.run_id}", Decimal(10))
    assert records.run_costs([run]) == {run.run_id: f"10.00 {excess.budget.currency}"}
    assert records.run_costs([]) == {}
    # While it runs, nobody is held by it; once it was stopped, its use case is.
    [running] = budgets.standings(budgets.all())
    assert (running.level, running.refuses) == (Level.HARD, False)
    stopped = records.stop_run(run, {"left": 2}, "over budget: x")
    assert (stopped.status, stopped.error, stopped.receipt) == (RunStatus.STOPPED, "over budget: x", {"left": 2})
    [held] = budgets.standings(budgets.all())
    assert (held.refuses, held.use_case) == (True, "sales")
    again = records.open_run(Stage.TRAINING, "sales", run.key, dataset_version=1)
    assert (again.run_id, again.status, again.attempts, again.error) == (run.run_id, RunStatus.RUNNING, 2, None)
    assert [each.number for each in records.batches(again, pending=True)] == [batch.number]


def test_what_a_stopped_run_left_is_replaced_when_it_goes_on(make_records: MakeRecords, budgets: Budgets) -> None:
    from tests.infra.test_database import models

    records = make_records("left-over")
    run, batch = begin(records)
    for why in ("over budget: once", "over budget: twice"):
        records.leave(run, why)
    rows = records.partition_models(run).set_index("partition")
    assert sorted(rows["outcome"]) == ["left", "left", "reused"]
    assert set(rows.loc[list(batch.partitions), "reason"]) == {"over budget: twice"}
    records.start_batch(batch)
    records.finish_training_batch(batch, models())
    assert "left" not in set(records.partition_models(run)["outcome"])


def test_a_silo_is_asked_where_its_rows_are(make_records: MakeRecords, budgets: Budgets) -> None:
    silo = sample_tenant("apart").model_copy(update={"isolation": Isolation.SILO})
    records = make_records(silo)
    set_cpu_prices(budgets.cluster, "standard")
    budgets.set(budget("apart", "10"))
    work(budgets, "apart", 11, "a", url=budgets.cluster.silo_url("apart"))
    work(budgets, "apart", 11, "a")  # a move has not removed it here yet
    assert records.excess("sales") is not None
    [standing] = budgets.standings(budgets.all())
    assert (standing.level, standing.spent) == (Level.HARD, Decimal(11))


def test_jobs_of_whoever_is_over_wait_and_go_on(make_records: MakeRecords, budgets: Budgets) -> None:
    both = sample_tenant("waiting", sales_use_case(), sales_use_case(id="stock"))
    records, other = make_records(both), make_records("going")
    jobs = [each.request(name, JobKind.REFRESH, by="test") for each, name in
            ((records, "sales"), (records, "stock"), (other, "sales"))]  # fmt: skip
    queue, slots = Queue(budgets.cluster), {tier: TierPolicy(workers=1, max_upload_bytes=1, runs=9) for tier in Tier}
    budgets.hold([Held("waiting", "stock", "over budget: stock"), Held("nobody", "", "over budget")])
    assert [records.job(job.job_id).held for job in jobs[:2]] == [None, "over budget: stock"]
    budgets.hold([Held("waiting", "", "over budget: all"), Held("waiting", "stock", "over budget: stock")])
    assert [records.job(job.job_id).held for job in jobs[:2]] == ["over budget: all", "over budget: stock"]
    assert [row["held"] for row in queue.held()] == ["over budget: all", "over budget: stock"]
    assert queue.place(jobs[0]) is None  # nor does anybody wait behind it
    assert [job.tenant for job in queue.claim(slots)] == ["going"]
    assert queue.claim(slots) == []
    budgets.hold([])
    assert [job.tenant for job in queue.claim(slots)] == ["waiting"]
    assert records.job(jobs[0].job_id).held is None


def test_a_job_that_may_not_spend_more_keeps_its_tries(make_records: MakeRecords, budgets: Budgets) -> None:
    records = make_records("patient")
    job = records.request("sales", JobKind.REFRESH, by="test")
    _sql(
        budgets.cluster.operator_url, "UPDATE jobs SET status = 'running', attempts = 1 WHERE job_id = :j", j=job.job_id
    )
    tries = text("SELECT tries_left FROM jobs")
    before = transact(budgets.cluster.operator_url, lambda connection: connection.scalar(tries))
    records.postpone(job.job_id, 1, "over budget: x")
    found = records.job(job.job_id)
    assert (found.status, found.error) == ("waiting", "over budget: x")
    _sql(
        budgets.cluster.operator_url,
        "UPDATE jobs SET submitted_at = now() - interval '5 days', pool = 'tier-standard', tier = 'standard'",
    )
    assert len(busy_slots(budgets.cluster, NOW - timedelta(days=7), NOW)) == 0  # it does not hold a slot for five days
    assert transact(budgets.cluster.operator_url, lambda connection: connection.scalar(tries)) == before


def test_a_limit_is_told_once_a_month_and_again_when_it_is_changed(make_records: MakeRecords, budgets: Budgets) -> None:
    make_records("told")
    budgets.set(budget("told", "10"))
    work(budgets, "told", 9, "a")
    [standing] = budgets.standings(budgets.all())
    assert standing.level is Level.SOFT
    assert [budgets.tell_once(standing, Level.SOFT) for _ in range(3)] == [True, False, False]
    assert budgets.tell_once(standing, Level.HARD)
    following = standing.model_copy(update={"about": "2099-01"})
    assert [budgets.tell_once(following, Level.SOFT) for _ in range(2)] == [True, False]
    budgets.set(budget("told", "10"))
    assert not budgets.tell_once(standing, Level.SOFT)
    budgets.set(budget("told", "20"))
    assert budgets.tell_once(standing, Level.SOFT)
    budgets.remove("told", None, Period.MONTH)
    assert not budgets.tell_once(standing, Level.SOFT)


def test_the_platforms_budget_is_shared_out_by_priority(make_records: MakeRecords, budgets: Budgets) -> None:
    first, last = make_records("premier"), make_records("humble")
    everything = text("DELETE FROM usage; DELETE FROM processes")
    for url in Operator(budgets.cluster).data_urls().values():
        transact(url, lambda connection: connection.execute(everything))
    budgets.set(budget(None, "100"))
    budgets.set(budget("premier", "60", priority=5))
    work(budgets, "premier", 20, "a")
    work(budgets, "humble", 30, "b")

    def stops() -> dict[str | None, Decimal]:
        shares = budgets.share_platform(budgets.standings(budgets.all()))
        return {each.tenant: each.limit for each in shares if each.tenant in ("premier", "humble")}

    # 50 are left. `premier` may have all of them and needs 40, so that 10 are left for the others.
    assert stops() == {"premier": Decimal(70), "humble": Decimal(40)}
    assert last.excess("sales") is None
    work(budgets, "humble", 10, "c")
    stops()
    excess = last.excess("sales")
    assert excess is not None
    assert "humble's share of the platform's budget" in excess.message
    row = transact(
        last.url, lambda connection: connection.execute(text("SELECT * FROM budget_shares")).mappings().one()
    )
    assert (row["tenant"], row["stop_at"], "hard" in row) == ("humble", Decimal(40), False)  # nor does it see 100
    assert excess.limit == Decimal(40)
    assert first.excess("sales") is None
    work(budgets, "premier", 40, "d")
    stops()
    assert first.excess("sales") is not None
    budgets.remove(None, None, Period.MONTH)
    assert last.excess("sales") is None


def test_who_sets_and_removes_budgets_is_in_the_audit(make_records: MakeRecords, budgets: Budgets) -> None:
    make_records("audited")
    assert budgets.set(budget("audited", "5")) is None
    before = budgets.set(budget("audited", "7"))
    assert before is not None
    assert before.hard == 5
    budgets.remove("audited", None, Period.MONTH)
    entries = Audit(budgets.cluster).own_entries("audited", limit=9)
    assert [each["action"] for each in entries[:3]] == ["budget.remove", "budget.set", "budget.set"]
    assert entries[1]["details"]["hard"] == "7"
    with pytest.raises(NotFound):
        budgets.remove("audited", None, Period.MONTH)
    with pytest.raises(NotFound):
        budgets.set(budget("audited", "5", "no-such-use-case"))
    with pytest.raises(NotFound):
        budgets.set(budget("nobody", "5"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE budgets SET hard = 1000",
        "DELETE FROM budgets",
        "INSERT INTO budgets (tenant, use_case, period, hard, soft, currency) VALUES ('b', '', 'run', 1, 1, 'EUR')",
        "UPDATE budget_shares SET stop_at = 1000",
        "DELETE FROM budget_alerts",
        "UPDATE jobs SET held = NULL",
        "UPDATE price_rates SET cpu_hour = 0",
    ],
)
def test_a_tenant_may_read_and_not_raise_its_budget(
    make_records: MakeRecords, budgets: Budgets, statement: str
) -> None:
    records = make_records("eager")
    budgets.set(budget("eager", "5"))
    url = make_url(records.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT tenant, hard FROM budgets").fetchall() == [("eager", Decimal(5))]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)  # type: ignore[call-overload]
