"""`orchard budgets`: work stops when a hard limit is reached, loses nothing, and goes on when the limit is raised."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tasks.domain.names import Stage
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal

WORKERS = 2
"""Of one run; so many batches are in progress when a limit is reached."""


@pytest.fixture(scope="module", autouse=True)
def prices(settings: Settings, platform: None) -> None:
    """A CPU second of a standard tenant costs 1 EUR."""
    price = text(
        "INSERT INTO price_rates (tier, valid_from, currency, cpu_hour, gb_month, million_predictions)"
        " VALUES ('standard', '2026-01-01', 'EUR', 3600, 0, 0)"
    )
    transact(connected_cluster(settings).operator_url, lambda connection: connection.execute(price))


def stored(orchard: Terminal, tenant: str, days: int = 3000) -> None:
    """A tenant with a file of history that nobody has taken up; its six partitions are too large to share a batch."""
    orchard("tenants", "add", tenant_file(Path(), tenant)).worked()
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
