"""Who runs next: fair within a tier, within the limits, whatever happens to claims and runs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from infra.database.connect import transact
from infra.database.jobs import SILENT_S, TRIES
from infra.database.operator import Operator
from infra.database.queue import UNSTARTED_S, Due, Handed, Queue
from infra.settings import Settings
from tasks.domain.errors import Busy, Superseded
from tasks.domain.job import Job, JobKind, JobStatus
from tasks.domain.names import Purpose
from tasks.domain.run import Upload, UploadStatus
from tasks.domain.tenant import Isolation, Tenant, TenantState, Tier, TierPolicy
from tests.conftest import MakeRecords
from tests.samples import sales_use_case


def policy(runs: int, per_tenant: int = 1) -> TierPolicy:
    return TierPolicy(workers=1, max_upload_bytes=1, runs=runs, runs_per_tenant=per_tenant)


ONE_SLOT = {tier: policy(1) for tier in Tier}

RUNS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(6)]
"""Ids of runs in Prefect."""


@pytest.fixture
def queue(operator: Operator) -> Queue:
    """The queue of the session's cluster, empty, and with nobody served yet."""
    sql(operator, "DELETE FROM jobs")
    sql(operator, "UPDATE tenants SET last_turn_at = NULL")
    return Queue(operator.cluster)


def sql(operator: Operator, statement: str) -> None:
    transact(operator.cluster.operator_url, lambda connection: connection.execute(text(statement)))


def tenant(name: str, tier: Tier = Tier.STANDARD, use_cases: int = 1) -> Tenant:
    cases = tuple(sales_use_case(id=f"sales-{n}" if n else "sales") for n in range(use_cases))
    return Tenant(id=name, name=name, tier=tier, use_cases=cases)


def ask(make_records: MakeRecords, who: Tenant, uploads: int = 1) -> list[Job]:
    """Jobs of so many uploads in every use case of the tenant, in the order of arrival."""
    records = make_records(who)
    jobs = []
    for number in range(uploads):
        for use_case in who.use_cases:
            upload, _ = records.add_upload(
                use_case.id, Purpose.HISTORY, f"{use_case.id}-{number}", "a.csv", 10, f"{number}"
            )
            jobs.append(records.request(use_case.id, JobKind.PIPELINE, upload.upload_id, by="test"))
    return jobs


def take_turns(queue: Queue, operator: Operator, tiers: dict[Tier, TierPolicy], rounds: int) -> list[list[str]]:
    """Claims, lets all that was claimed end, and claims again; whose jobs ran in which round."""
    turns = []
    for _ in range(rounds):
        turns.append([claim.tenant for claim in queue.claim(tiers)])
        sql(operator, "UPDATE jobs SET status = 'done', finished_at = now() WHERE status = 'submitted'")
    return turns


def test_a_tenant_that_floods_waits_behind_one_that_asks_rarely(
    queue: Queue, operator: Operator, make_records: MakeRecords
) -> None:
    ask(make_records, tenant("flood"), uploads=20)
    assert [claim.tenant for claim in queue.claim(ONE_SLOT)] == ["flood"]
    ask(make_records, tenant("rare"))
    sql(operator, "UPDATE jobs SET status = 'done' WHERE status = 'submitted'")
    assert take_turns(queue, operator, ONE_SLOT, 3) == [["rare"], ["flood"], ["flood"]]


def test_every_tenant_gets_its_turn_within_one_round(
    queue: Queue, operator: Operator, make_records: MakeRecords
) -> None:
    names = [f"busy-{n}" for n in range(7)]
    for name in names:
        ask(make_records, tenant(name), uploads=5)
    slots = {tier: policy(2) for tier in Tier}
    turns = take_turns(queue, operator, slots, 8)
    in_order = [name for turn in turns for name in turn]
    for start in range(len(in_order) - len(names)):
        assert len(set(in_order[start : start + len(names)])) == len(names), in_order


def test_within_a_tenant_the_oldest_goes_first_and_a_use_case_is_worked_on_once(
    queue: Queue, make_records: MakeRecords
) -> None:
    jobs = ask(make_records, tenant("orderly", use_cases=2), uploads=2)
    many = {tier: policy(9, per_tenant=9) for tier in Tier}
    claimed = [claim.job_id for claim in queue.claim(many)]
    assert claimed == [jobs[0].job_id, jobs[1].job_id]  # the first upload of either use case
    assert queue.claim(many) == []


def test_no_upload_overtakes_an_earlier_one_that_is_tried_again(
    queue: Queue, operator: Operator, make_records: MakeRecords
) -> None:
    """Its rows would be replaced by those of the earlier one, which they are to replace."""
    first, second = ask(make_records, tenant("in-order"), uploads=2)
    records = make_records(tenant("in-order"))
    many = {tier: policy(9, per_tenant=9) for tier in Tier}
    for attempt in range(1, TRIES + 1):
        [claim] = queue.claim(many)
        assert claim.job_id == first.job_id
        records.start_job(claim.job_id, attempt, RUNS[0])
        records.give_back(claim.job_id, attempt, "the lake is away")
        if attempt < TRIES:
            assert queue.claim(many) == []
            sql(operator, "UPDATE jobs SET not_before = now()")
    assert records.job(first.job_id).status is JobStatus.FAILED
    assert [claim.job_id for claim in queue.claim(many)] == [second.job_id]


def test_what_needs_no_order_does_not_wait_for_an_upload_that_is_tried_again(
    queue: Queue, make_records: MakeRecords
) -> None:
    ask(make_records, tenant("out-of-order", use_cases=2))
    records = make_records(tenant("out-of-order", use_cases=2))
    [claim] = queue.claim(ONE_SLOT)
    records.start_job(claim.job_id, 1, RUNS[0])
    records.give_back(claim.job_id, 1, "the lake is away")
    refresh = records.request(claim.use_case, JobKind.REFRESH, by="test")
    many = {tier: policy(9, per_tenant=9) for tier in Tier}
    claimed = queue.claim(many)
    assert refresh.job_id in {each.job_id for each in claimed}
    assert {each.use_case for each in claimed} == {"sales", "sales-1"}


def test_limits_of_pool_and_tenant_hold(queue: Queue, make_records: MakeRecords) -> None:
    for name in ("big-a", "big-b", "big-c"):
        ask(make_records, tenant(name, use_cases=4))
    tiers = {tier: policy(4, per_tenant=2) for tier in Tier}
    first = [claim.tenant for claim in queue.claim(tiers)]
    assert sorted(first) == ["big-a", "big-a", "big-b", "big-c"]
    assert queue.claim(tiers) == []


def test_tiers_do_not_wait_for_one_another_and_a_new_tier_counts_at_once(
    queue: Queue, make_records: MakeRecords
) -> None:
    ask(make_records, tenant("cheap", Tier.FREE), uploads=3)
    assert len(queue.claim(ONE_SLOT)) == 1
    ask(make_records, tenant("dear", Tier.PREMIUM))
    [claim] = queue.claim(ONE_SLOT)
    assert (claim.tenant, claim.tier) == ("dear", "premium")
    make_records(tenant("cheap", Tier.STANDARD))  # the tenant moves up while its jobs wait
    assert queue.claim(ONE_SLOT) == []  # of a use case, one job at a time, whatever its tier
    make_records(tenant("mover", Tier.FREE, use_cases=2))
    ask(make_records, tenant("mover", Tier.FREE, use_cases=2))
    assert queue.claim(ONE_SLOT) == []  # the slot of free is still taken
    make_records(tenant("mover", Tier.STANDARD, use_cases=2))
    assert [(c.tenant, c.tier) for c in queue.claim(ONE_SLOT)] == [("mover", "standard")]


def test_two_dispatchers_at_once_hand_out_no_job_twice(queue: Queue, make_records: MakeRecords) -> None:
    for number in range(12):
        ask(make_records, tenant(f"twin-{number}"))
    tiers = {tier: policy(5) for tier in Tier}
    with ThreadPoolExecutor(4) as pool:
        claimed = [claim.key for claims in pool.map(lambda _: queue.claim(tiers), range(8)) for claim in claims]
    assert len(claimed) == len(set(claimed)) == 5


def test_equal_requests_are_one_job_and_an_ended_one_waits_again(queue: Queue, make_records: MakeRecords) -> None:
    [job] = ask(make_records, tenant("again"))
    records = make_records(tenant("again"))
    assert records.request("sales", JobKind.PIPELINE, job.upload_id, by="test").job_id == job.job_id
    refresh = records.request("sales", JobKind.REFRESH, by="test")
    assert records.request("sales", JobKind.REFRESH, by="test").job_id == refresh.job_id
    [claim] = queue.claim(ONE_SLOT)
    records.start_job(claim.job_id, 1, RUNS[0])
    records.end_job(claim.job_id, 1, "it cannot be read")
    assert records.job(job.job_id).status is JobStatus.FAILED
    again = records.request("sales", JobKind.PIPELINE, job.upload_id, by="test")
    assert (again.job_id, again.status, again.attempts) == (job.job_id, JobStatus.WAITING, 1)


def test_a_job_may_be_asked_for_again_and_again(queue: Queue, make_records: MakeRecords) -> None:
    """By then, the statement is prepared on its connection, and planned without its parameters."""
    records = make_records(tenant("asks-often"))
    assert len({records.request("sales", JobKind.REFRESH, by="test").job_id for _ in range(30)}) == 1


def test_an_attempt_that_was_given_up_cannot_begin(queue: Queue, make_records: MakeRecords) -> None:
    ask(make_records, tenant("late"))
    records = make_records(tenant("late"))
    [first] = queue.claim(ONE_SLOT)
    queue.give_back(first, "the run never began")
    with pytest.raises(Superseded):  # it waits for its turn
        records.start_job(first.job_id, 1, RUNS[1])
    [second] = queue.claim(ONE_SLOT)
    assert (second.job_id, second.attempts) == (first.job_id, 2)
    with pytest.raises(Superseded):
        records.start_job(first.job_id, 1, RUNS[1])
    records.start_job(first.job_id, 2, RUNS[2])
    with pytest.raises(Superseded):  # two processes, one attempt: whoever came second must not work
        records.start_job(first.job_id, 2, RUNS[3])
    records.end_job(first.job_id, 1)  # the old one's word does not count
    assert records.job(first.job_id).status is JobStatus.RUNNING
    assert records.beat(first.job_id, 2)
    assert not records.beat(first.job_id, 1)


def test_a_passing_failure_is_tried_again_later_and_not_for_ever(
    queue: Queue, operator: Operator, make_records: MakeRecords
) -> None:
    ask(make_records, tenant("patient-one"))
    records = make_records(tenant("patient-one"))
    for attempt in range(1, TRIES + 1):
        sql(operator, "UPDATE jobs SET not_before = now()")
        [claim] = queue.claim(ONE_SLOT)
        records.start_job(claim.job_id, attempt, RUNS[0])
        records.give_back(claim.job_id, attempt, "the lake is away")
        assert queue.claim(ONE_SLOT) == []  # it waits a while
    job = records.job(claim.job_id)
    assert (job.status, job.error) == (JobStatus.FAILED, "the lake is away")


def test_what_is_given_back_gives_way_to_an_equal_job_that_waits_already(
    queue: Queue, make_records: MakeRecords
) -> None:
    records = make_records(tenant("asked-twice"))
    for give_back in (
        lambda claim: records.give_back(claim.job_id, claim.attempts, "the lake is away"),
        lambda claim: records.postpone(claim.job_id, claim.attempts, "the lake is away"),
        lambda claim: queue.give_back(claim, "the lake is away"),
    ):
        records.request("sales", JobKind.REFRESH, by="test")
        [claim] = queue.claim(ONE_SLOT)
        records.start_job(claim.job_id, claim.attempts, RUNS[0])
        since = records.request("sales", JobKind.REFRESH, by="test")
        give_back(claim)
        job = records.job(claim.job_id)
        assert (job.status, job.error) == (
            JobStatus.FAILED,
            "the lake is away; an equal job, asked for since, does it",
        )
        [other] = queue.claim(ONE_SLOT)
        assert other.job_id == since.job_id
        records.start_job(other.job_id, other.attempts, RUNS[1])
        records.end_job(other.job_id, other.attempts)


def test_an_equal_job_that_is_asked_for_at_the_same_moment_is_no_trouble(
    queue: Queue, make_records: MakeRecords
) -> None:
    records = make_records(tenant("at-once"))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(40):
            records.request("sales", JobKind.REFRESH, by="test")
            [claim] = queue.claim(ONE_SLOT)
            records.start_job(claim.job_id, claim.attempts, RUNS[0])
            asked = pool.submit(records.request, "sales", JobKind.REFRESH, by="test")
            pool.submit(records.give_back, claim.job_id, claim.attempts, "away", at_once=True).result()
            asked.result()
            assert [job.status for job in records.jobs()].count(JobStatus.WAITING) == 1
            [claim] = queue.claim(ONE_SLOT)
            records.end_job(claim.job_id, claim.attempts)


def test_a_prefect_that_is_away_costs_a_job_no_try(
    queue: Queue, operator: Operator, make_records: MakeRecords, settings: Settings
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.dispatch import dispatch

    [job] = ask(make_records, tenant("untaken"))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        for _ in range(TRIES + 1):
            sql(operator, "UPDATE jobs SET not_before = now()")
            assert [each.job_id for each in dispatch(settings)] == [job.job_id]
            assert queue.claim(ONE_SLOT) == []  # it waits a while
    found = make_records(tenant("untaken")).job(job.job_id)
    assert found.status is JobStatus.WAITING
    assert "Prefect did not take it" in str(found.error)


def test_a_use_case_that_somebody_works_on_costs_a_job_no_try(
    queue: Queue,
    operator: Operator,
    make_records: MakeRecords,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.work import working
    from infra.space import open_space

    monkeypatch.setenv("ORCHARD_HOME", str(settings.home))
    [job] = ask(make_records, tenant("elbowed"))
    space = open_space(settings, "elbowed")
    with space.records.lock("sales"):  # `orchard run` of the operator's, for an hour
        for attempt in range(1, TRIES + 2):
            sql(operator, "UPDATE jobs SET not_before = now()")
            [claim] = queue.claim(ONE_SLOT)
            with working(space, claim.job_id, attempt), space.records.lock("sales"):
                raise AssertionError("two runs at once")
            assert queue.claim(ONE_SLOT) == []  # it waits a while
    found = space.records.job(job.job_id)
    assert found.status is JobStatus.WAITING
    assert "another run works on" in str(found.error)


def test_the_silent_and_the_unsubmitted_are_found(queue: Queue, operator: Operator, make_records: MakeRecords) -> None:
    ask(make_records, tenant("mute", use_cases=3))
    records = make_records(tenant("mute", use_cases=3))
    one, two, three = (claim for claim in queue.claim({tier: policy(9, 9) for tier in Tier}))
    records.start_job(one.job_id, 1, RUNS[4])
    queue.submitted(two, RUNS[5])
    found = {handed.job.job_id: handed[1:] for handed in queue.handed_out()}
    assert found == {one.job_id: (False, False), two.job_id: (False, False)}
    assert queue.unsubmitted() == []
    sql(operator, "UPDATE jobs SET heartbeat_at = now() - interval '1 hour', submitted_at = now() - interval '1 hour'")
    assert [claim.job_id for claim in queue.unsubmitted()] == [three.job_id]
    started = "SELECT extract(epoch FROM now() - pg_postmaster_start_time())"
    up_s = transact(operator.cluster.operator_url, lambda c: c.scalar(text(started)))
    found = {handed.job.job_id: handed[1:] for handed in queue.handed_out()}
    # while the database was away, nobody could be heard
    assert found == {one.job_id: (up_s > SILENT_S, False), two.job_id: (False, up_s > UNSTARTED_S)}
    queue.end(two, "cancelled by the operator")
    assert records.job(two.job_id).status is JobStatus.FAILED


def test_a_run_that_waited_for_its_worker_gets_time_to_begin(queue: Queue, make_records: MakeRecords) -> None:
    """A worker that was away takes runs up that were handed out long ago."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Pending, Scheduled

    from flows.reconcile import UNSTARTED, put_right

    ask(make_records, tenant("taken-up-late"))
    [claim] = queue.claim(ONE_SLOT)
    handed = Handed(claim, silent=False, unstarted=True)
    now = datetime.now(UTC)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}), get_client(sync_client=True) as client:
        assert not put_right(client, queue, handed, Scheduled(timestamp=now - 2 * UNSTARTED))
        assert not put_right(client, queue, handed, Pending(timestamp=now - UNSTARTED / 2))
        assert put_right(client, queue, handed, Pending(timestamp=now - 2 * UNSTARTED))
    assert make_records(tenant("taken-up-late")).job(claim.job_id).status is JobStatus.WAITING


def test_a_rejected_file_that_comes_again_while_its_run_ends_gets_another_turn(
    queue: Queue,
    make_records: MakeRecords,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows import pipeline
    from flows.operations import hand_in
    from infra.database.audit import SOMEBODY, Audit, Witness
    from infra.space import open_space

    monkeypatch.setenv("ORCHARD_HOME", str(settings.home))
    make_records(tenant("stubborn"))
    space, file = open_space(settings, "stubborn"), tmp_path / "bad.csv"
    witness = Witness(Audit(queue.cluster), SOMEBODY)
    file.write_text("no rows of ours")

    def reject(_: str, upload_id: str) -> Upload:
        return space.records.update_upload(upload_id, status=UploadStatus.REJECTED, error="bad rows")

    def send_again(*_: object) -> None:
        hand_in(space, "sales", Purpose.HISTORY, file, "test", witness)

    # The moment between the verdict and the end of the job is what counts.
    monkeypatch.setattr(pipeline, "ingest", reject)
    monkeypatch.setattr(pipeline, "show_upload", send_again)
    upload, _ = hand_in(space, "sales", Purpose.HISTORY, file, "test", witness)
    [claim] = queue.claim(ONE_SLOT)
    pipeline.pipeline.fn("stubborn", upload.upload_id, claim.job_id, claim.attempts)
    assert space.records.upload(upload.upload_id).status is UploadStatus.RECEIVED
    assert space.records.job(claim.job_id).status is JobStatus.WAITING


def test_a_heart_that_missed_a_beat_goes_on_beating(
    queue: Queue,
    operator: Operator,
    make_records: MakeRecords,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the database said meanwhile: a run that is not heard of any more is taken for dead."""
    from flows import work
    from infra.space import open_space

    monkeypatch.setenv("ORCHARD_HOME", str(settings.home))
    monkeypatch.setattr(work, "BEAT_S", 0.1)  # the waiting is not what is tested
    ask(make_records, tenant("skips-one"))
    space = open_space(settings, "skips-one")
    [claim] = queue.claim(ONE_SLOT)
    beat = text("SELECT heartbeat_at FROM jobs WHERE status = 'running'")

    def last_beat() -> datetime:
        found: datetime = transact(operator.cluster.operator_url, lambda connection: connection.scalar(beat))
        return found

    with work.working(space, claim.job_id, claim.attempts):
        sql(operator, "ALTER TABLE jobs ADD CONSTRAINT refused CHECK (heartbeat_at IS NULL) NOT VALID")
        try:
            time.sleep(1)
        finally:
            sql(operator, "ALTER TABLE jobs DROP CONSTRAINT refused")
        before = last_beat()
        time.sleep(1)
        assert last_beat() > before


def test_a_run_that_could_not_be_heard_for_a_while_gets_time_to_say_that_it_lives(
    queue: Queue, operator: Operator, make_records: MakeRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.reconcile import listened
    from infra.database import queue as module

    monkeypatch.setattr(module, "SILENT_S", 1)  # the session's server may have started less than fifteen seconds ago
    for name in ("frozen", "dead"):
        ask(make_records, tenant(name))
    for claim in queue.claim({tier: policy(2) for tier in Tier}):
        make_records(tenant(claim.tenant)).start_job(claim.job_id, 1, RUNS[0])
    sql(operator, "UPDATE jobs SET heartbeat_at = now() - interval '1 minute'")  # the machine slept
    frozen = make_records(tenant("frozen"))
    job_id = frozen.jobs()[0].job_id

    def wake() -> None:
        for _ in range(10):
            time.sleep(0.5)
            frozen.beat(job_id, 1)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(wake)
        silent = [handed.job.tenant for handed in listened(queue) if handed.silent]
    assert silent == ["dead"]


def test_a_run_that_gave_its_job_back_gets_time_to_report(queue: Queue, make_records: MakeRecords) -> None:
    from prefect.client.schemas.objects import FlowRun

    from flows.reconcile import GRACE, _works_for

    ask(make_records, tenant("reports"))
    records = make_records(tenant("reports"))
    run = FlowRun(flow_id=uuid4())
    [claim] = queue.claim(ONE_SLOT)
    records.start_job(claim.job_id, 1, str(run.id))
    now = datetime.now(UTC)
    assert _works_for(run, 1, records.job(claim.job_id), now + 2 * GRACE)
    records.give_back(claim.job_id, 1, "the worker was stopped", at_once=True)
    assert _works_for(run, 1, records.job(claim.job_id), now + GRACE / 2)
    assert not _works_for(run, 1, records.job(claim.job_id), now + 2 * GRACE)
    queue.claim(ONE_SLOT)
    assert _works_for(run, 1, records.job(claim.job_id), now + GRACE / 2)
    assert not _works_for(run, 1, records.job(claim.job_id), now + 2 * GRACE)


def test_where_a_job_stands(queue: Queue, make_records: MakeRecords) -> None:
    first = ask(make_records, tenant("stands-a"), uploads=3)
    [second] = ask(make_records, tenant("stands-b"))
    assert queue.place(first[0]).position == 1
    assert queue.place(second).position == 2  # before the second job of the other tenant
    assert queue.place(first[1]).position == 3
    queue.claim(ONE_SLOT)
    assert queue.place(first[0]) is None
    [row] = queue.waiting()
    assert (row["tier"], row["waiting"], row["running"]) == ("standard", 3, 1)


def due_of(queue: Queue, tenant: str) -> list[Due]:
    return [due for due in queue.due() if due.tenant == tenant]


def test_what_is_due_is_asked_for_once(queue: Queue, operator: Operator, make_records: MakeRecords) -> None:
    who = Tenant(id="punctual", name="p", tier=Tier.FREE, use_cases=(sales_use_case(schedule="0 3 * * *"),))
    records = make_records(who)
    [due] = due_of(queue, "punctual")
    assert due[:4] == ("punctual", "sales", "refresh", "0 3 * * *")
    soon = datetime.now(UTC) + timedelta(seconds=-1)
    assert queue.schedule(due, soon)  # the first time only works out when it will be
    assert records.jobs() == []
    [due] = due_of(queue, "punctual")
    later = datetime.now(UTC) + timedelta(hours=1)
    assert queue.schedule(due, later)
    assert not queue.schedule(due, later)  # another dispatcher found the same
    assert [(job.kind, job.requested_by) for job in records.jobs()] == [(JobKind.REFRESH, "schedule")]
    assert due_of(queue, "punctual") == []


def test_a_schedule_that_cannot_be_read_holds_up_no_other(
    queue: Queue, operator: Operator, make_records: MakeRecords
) -> None:
    from flows.dispatch import start_due

    for name in ("garbled", "legible"):
        use_case = sales_use_case(schedule="0 3 * * *")
        make_records(Tenant(id=name, name="p", tier=Tier.FREE, use_cases=(use_case,)))
    change = "UPDATE use_cases SET spec = jsonb_set(spec::jsonb, '{schedule}', '\"%s\"')::json WHERE tenant = 'garbled'"
    sql(operator, change % "whenever")
    assert start_due(queue) >= 1
    assert due_of(queue, "legible") == []
    assert len(due_of(queue, "garbled")) == 1
    sql(operator, change % "0 3 * * *")


def test_a_changed_schedule_counts_at_once(queue: Queue, make_records: MakeRecords) -> None:
    from flows.dispatch import start_due

    def define(*schedules: str) -> None:
        cases = [sales_use_case(id=f"sales-{n}", schedule=schedule) for n, schedule in enumerate(schedules)]
        make_records(Tenant(id="replanned", name="p", tier=Tier.FREE, use_cases=tuple(cases)))

    define("0 3 1 1 *", "0 4 1 1 *")
    start_due(queue)
    assert due_of(queue, "replanned") == []
    define("* * * * *", "0 4 1 1 *")
    assert [(due.use_case, due.due_at) for due in due_of(queue, "replanned")] == [("sales-0", None)]
    start_due(queue)
    assert due_of(queue, "replanned") == []


def test_the_next_time_is_after_the_one_that_is_due_whichever_clock_is_ahead() -> None:
    from flows.dispatch import following

    due_at = datetime(2026, 11, 29, 3, tzinfo=UTC)
    tomorrow = due_at + timedelta(days=1)
    assert following("0 3 * * *", due_at - timedelta(seconds=2), due_at) == tomorrow
    assert following("0 3 * * *", due_at + timedelta(seconds=2), due_at) == tomorrow
    assert following("0 3 * * *", due_at - timedelta(seconds=2)) == due_at


def test_a_tenant_with_compute_of_its_own_takes_nobodys_slot(
    queue: Queue, operator: Operator, make_records: MakeRecords
) -> None:
    own = tenant("own-compute", use_cases=2).model_copy(update={"isolation": Isolation.BRIDGE})
    ask(make_records, tenant("shared-one"), uploads=2)
    ask(make_records, tenant("shared-two"))
    ask(make_records, own)
    tiers = {tier: policy(1, 2) for tier in Tier}
    claimed = queue.claim(tiers)
    assert sorted((job.tenant, job.pool) for job in claimed) == [
        ("own-compute", "tenant-own-compute"),
        ("own-compute", "tenant-own-compute"),
        ("shared-one", "tier-standard"),
    ]
    assert queue.claim(tiers) == []


def test_nothing_of_a_tenant_that_moves_is_handed_out(
    queue: Queue, operator: Operator, make_records: MakeRecords
) -> None:
    [job] = ask(make_records, tenant("on-the-move"))
    operator.set_state("on-the-move", TenantState.MOVING)
    assert queue.claim(ONE_SLOT) == []
    with pytest.raises(Busy, match="moving"):
        make_records(tenant("on-the-move")).add_upload("sales", Purpose.SCORING, "u9", "a.csv", 1, "zz")
    operator.set_state("on-the-move", TenantState.ACTIVE)
    assert [claim.job_id for claim in queue.claim(ONE_SLOT)] == [job.job_id]


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    uploads=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    runs=st.integers(1, 4),
    per_tenant=st.integers(1, 2),
)
def test_law_whatever_waits_everything_runs_once_and_never_too_much_at_once(
    queue: Queue, operator: Operator, make_records: MakeRecords, uploads: list[int], runs: int, per_tenant: int
) -> None:
    sql(operator, "DELETE FROM jobs")
    expected = set()
    for number, count in enumerate(uploads):
        expected |= {job.job_id for job in ask(make_records, tenant(f"law-{number}", use_cases=2), uploads=count)}
    tiers = {tier: policy(runs, per_tenant) for tier in Tier}
    seen: list[int] = []
    while claims := queue.claim(tiers):
        tenants = [claim.tenant for claim in claims]
        assert len(claims) <= runs
        assert all(tenants.count(name) <= per_tenant for name in tenants)
        assert len({(claim.tenant, claim.use_case) for claim in claims}) == len(claims)
        seen += [claim.job_id for claim in claims]
        sql(operator, "UPDATE jobs SET status = 'done' WHERE status = 'submitted'")
    assert sorted(seen) == sorted(expected)
