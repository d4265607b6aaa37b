"""`orchard budgets`: work stops when a hard limit is reached, loses nothing, and goes on when the limit is raised."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventNameFilter, EventOrder
from sqlalchemy import text

from flows.budgets import review
from flows.ingestion import ingest
from flows.pipeline import pipeline
from flows.runner import in_this_process
from flows.scoring import score
from flows.training import train
from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.database.queue import Queue
from infra.definitions import load_tiers
from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tasks.domain.errors import OverBudget
from tasks.domain.events import BUDGET_EXCEEDED
from tasks.domain.job import JobKind
from tasks.domain.names import Stage
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal
from tests.priced import prices_kept, set_cpu_prices

WORKERS = 2
"""Of one run; so many batches are in progress when a limit is reached."""


@pytest.fixture(scope="module", autouse=True)
def prices(settings: Settings, platform: None) -> Iterator[None]:
    """A CPU second of a standard tenant costs 1 EUR."""
    cluster = connected_cluster(settings)
    with prices_kept(cluster):
        set_cpu_prices(cluster, "standard")
        yield


def stored(orchard: Terminal, tenant: str, days: int = 3000) -> None:
    """A tenant with a file of history that nobody has taken up; its six partitions are too large to share a batch."""
    orchard("tenants", "add", tenant_file(Path(), tenant, estimators=["linear"])).worked()
    Path("history.csv").write_text(history(days))
    orchard("upload", tenant, "sales", "history", "history.csv", "--no-run").worked()


def batches(space: TenantSpace, run_id: int) -> list[tuple[int, int, object]]:
    """Number, attempts and end of each batch."""
    query = text("SELECT number, attempts, finished_at FROM batches WHERE run_id = :run_id ORDER BY number")
    rows = transact(space.records.url, lambda connection: connection.execute(query, {"run_id": run_id}).all())
    return [tuple(row) for row in rows]


def test_a_run_stops_within_one_batch_and_goes_on_where_it_stopped(orchard: Terminal, settings: Settings) -> None:
    stored(orchard, "thrifty")
    orchard("budgets", "set", "thrifty", "sales", "--per", "run", "--hard", "0.000001").worked()
    # The run begins, because nothing was spent on it yet.
    orchard("run", "thrifty").failed(1, "over budget", "in run", "budgets set thrifty sales --per run --hard AMOUNT")
    space = open_space(settings, "thrifty")
    [run] = space.records.runs("sales", Stage.TRAINING)
    receipt = run.receipt
    assert run.status == "stopped"
    assert 1 <= int(str(receipt["trained"])) <= WORKERS
    assert int(str(receipt["left"])) == 6 - int(str(receipt["trained"]))
    assert receipt["partitions"] == 6
    rows = orchard("models", "thrifty", "sales", "--json").worked().json
    assert Counter(row["outcome"] for row in rows) == {"trained": receipt["trained"], "left": receipt["left"]}
    # What was finished serves; for the others, a fallback answers.
    [release] = orchard("releases", "list", "thrifty", "sales", "--json").worked().json
    assert (release["status"], release["promoted"]) == ("champion", receipt["trained"])
    # A second try begins nothing.
    before = batches(space, run.run_id)
    orchard("run", "thrifty").failed(1, "over budget")
    assert batches(space, run.run_id) == before

    orchard("budgets", "set", "thrifty", "sales", "--per", "run", "--hard", "1000").worked()
    orchard("run", "thrifty").worked()
    [again] = space.records.runs("sales", Stage.TRAINING)
    assert (again.run_id, again.status, again.attempts) == (run.run_id, "finished", run.attempts + 1)
    assert (again.receipt["trained"], again.receipt["left"], again.receipt["partitions"]) == (6, 0, 6)
    after = batches(space, run.run_id)
    assert [each for each in after if each in before] == [each for each in before if each[2] is not None]
    assert [attempts for _, attempts, _ in after] == [1] * 6
    newest, first = orchard("releases", "list", "thrifty", "sales", "--json").worked().json
    assert (newest["status"], newest["promoted"]) == ("champion", 6)
    assert first["status"] == "retired"


def test_a_spent_month_refuses_new_runs_until_it_is_raised(orchard: Terminal, settings: Settings) -> None:
    stored(orchard, "prudent", days=40)
    Path("scoring.csv").write_text(scoring())
    orchard("run", "prudent").worked()
    shown = orchard("budgets", "set", "prudent", "--hard", "0.01", "--json").worked().json
    assert Decimal(shown["spent"]) > 1
    assert shown["reached"] == "hard"
    orchard("upload", "prudent", "sales", "scoring", "scoring.csv").failed(
        1, "over budget", "of 0.01 EUR this month", "orchard budgets set prudent --hard AMOUNT"
    )
    space = open_space(settings, "prudent")
    assert space.records.runs("sales", Stage.SCORING) == []
    [waiting] = orchard("uploads", "prudent", "--json").worked().json[1:]
    assert waiting["status"] == "received"
    assert waiting["error"].startswith("over budget: ")
    orchard("budgets", "remove", "prudent").worked()
    orchard("run", "prudent").worked()
    [_, scored] = orchard("uploads", "prudent", "--json").worked().json
    assert (scored["status"], scored["error"]) == ("done", None)


def test_the_platforms_budget_holds_a_command_though_nobody_dispatches(orchard: Terminal, settings: Settings) -> None:
    stored(orchard, "unwatched", days=40)
    orchard("budgets", "set", "--platform", "--hard", "0.000001").worked()
    try:
        orchard("run", "unwatched").failed(1, "over budget", "share of the platform's budget")
    finally:
        orchard("budgets", "remove", "--platform").worked()
    orchard("run", "unwatched").worked()


def test_scoring_stops_too_and_shows_all_or_nothing(orchard: Terminal, settings: Settings) -> None:
    stored(orchard, "all-or-nothing")
    orchard("run", "all-or-nothing").worked()
    space = open_space(settings, "all-or-nothing")
    Path("scoring.csv").write_text(scoring(days=3000))
    orchard("budgets", "set", "all-or-nothing", "--per", "run", "--hard", "0.000001").worked()
    upload_id = admitted(orchard, space, "scoring.csv")
    with pytest.raises(OverBudget, match="partitions are left"):
        score("all-or-nothing", "sales", upload_id)
    [run] = space.records.runs("sales", Stage.SCORING)
    assert run.status == "stopped"
    assert 1 <= 6 - int(str(run.receipt["left"])) <= WORKERS
    assert len(space.records.predictions("sales")) == 0
    done = [each for each in batches(space, run.run_id) if each[2] is not None]
    orchard("budgets", "remove", "all-or-nothing", "--per", "run").worked()
    with in_this_process():
        assert score("all-or-nothing", "sales", upload_id) == [run.run_id]
    assert len(space.records.predictions("sales")) == 6 * 3000
    assert [each for each in batches(space, run.run_id) if each in done] == done
    assert space.records.run(run.run_id).attempts == 2


def admitted(orchard: Terminal, space: TenantSpace, file: str) -> str:
    """The id of an upload that is in its table."""
    orchard("upload", space.tenant.id, "sales", "scoring", file, "--no-run").worked()
    upload = space.records.uploads("sales")[-1]
    with in_this_process():
        ingest(space.tenant.id, upload.upload_id)
    return upload.upload_id


def test_a_month_that_is_spent_in_mid_training_stops_the_run(orchard: Terminal, settings: Settings) -> None:
    stored(orchard, "monthly")
    space = open_space(settings, "monthly")
    [upload] = space.records.uploads("sales")
    with in_this_process():
        ingest("monthly", upload.upload_id)
        shown = orchard("budgets", "set", "monthly", "--hard", "1000", "--json").worked().json
        hard = Decimal(shown["spent"]) + Decimal("0.01")
        orchard("budgets", "set", "monthly", "--hard", hard).worked()
        run = space.records.run(train("monthly", "sales"))
        assert (run.status, "this month" in str(run.error)) == ("stopped", True)
        assert 1 <= int(str(run.receipt["trained"])) <= WORKERS
        with pytest.raises(OverBudget):
            train("monthly", "sales")
        orchard("budgets", "remove", "monthly").worked()
        assert train("monthly", "sales") == run.run_id
    assert space.records.run(run.run_id).receipt["trained"] == 6


def test_a_job_waits_for_its_budget_and_is_told_once(orchard: Terminal, settings: Settings) -> None:
    stored(orchard, "queued")
    space, queue = open_space(settings, "queued"), Queue(connected_cluster(settings))
    [upload] = space.records.uploads("sales")
    space.records.request("sales", JobKind.PIPELINE, upload.upload_id, by="test")
    [job] = queue.claim(load_tiers(settings.tiers_file))
    orchard("budgets", "set", "queued", "--per", "run", "--hard", "0.000001").worked()
    with in_this_process():
        pipeline("queued", upload.upload_id, job_id=job.job_id, attempt=job.attempts)  # it has not failed
    waiting = space.records.job(job.job_id)
    assert (waiting.status, waiting.attempts) == ("waiting", 1)
    [run] = space.records.runs("sales", Stage.TRAINING)
    assert [(each.tenant, each.use_case) for each in review(settings)] == [("queued", "sales")]
    [shown] = orchard("uploads", "queued", "--json").worked().json
    assert shown["status"] == "over_budget"
    assert shown["error"].startswith("over budget: ")
    assert f"in run {run.run_id}; do next: raise it with orchard budgets set queued --per run" in shown["error"]
    told = orchard("budgets", "show", "queued", "--json").worked().json
    assert [(each["use_case"], each["jobs"]) for each in told["held"]] == [("sales", 1)]
    assert [each["reached"] for each in told["budgets"]] == ["hard"]
    [held] = orchard("status", "--json").worked().json["held"]
    assert held["tenant"] == "queued"
    transact(queue.cluster.operator_url, lambda c: c.execute(text("UPDATE jobs SET not_before = now()")))
    assert queue.claim(load_tiers(settings.tiers_file)) == []

    orchard("budgets", "set", "queued", "--per", "run", "--hard", "1000").worked()
    assert review(settings) == []
    [again] = queue.claim(load_tiers(settings.tiers_file))
    assert (again.job_id, again.attempts) == (job.job_id, 2)
    with in_this_process():
        pipeline("queued", upload.upload_id, job_id=again.job_id, attempt=again.attempts)
    assert space.records.job(job.job_id).status == "done"
    assert space.records.run(run.run_id).receipt["trained"] == 6
    # Each limit was told once, however often it was looked at.
    assert budget_events("queued") == [("soft", f"run {run.run_id}"), ("hard", f"run {run.run_id}")]


def budget_events(tenant: str) -> list[tuple[str, str]]:
    """Level and what it is about, of the events that Prefect has of a tenant's budgets, as they came."""
    wanted = EventFilter(event=EventNameFilter(name=[BUDGET_EXCEEDED]), order=EventOrder.ASC)
    for _ in range(60):
        with get_client(sync_client=True) as client:
            answer = client.request(
                "POST", "/events/filter", json={"filter": wanted.model_dump(mode="json"), "limit": 50}
            )
        payloads = [each["payload"] for each in answer.json()["events"]]
        found = [(each["level"], each["about"]) for each in payloads if each["tenant"] == tenant]
        if len(found) >= 2:
            return found
        time.sleep(0.25)  # the worker that sends events, and the server, take their time
    return found
