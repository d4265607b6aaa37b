"""`orchard run --dry-run` and `--ask-above`: what they tell, what they refuse, and that they change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.settings import Settings
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal


def remains(settings: Settings) -> dict[str, int]:
    """Rows of every table but `overhead`, where each command says what it used itself; and files of the lake."""

    def count(connection: Connection) -> dict[str, int]:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return {
            name: connection.scalar(text(f'SELECT count(*) FROM "{name}"')) or 0
            for name in tables
            if name != "overhead"
        }

    files = [path for path in (settings.home / "lake").rglob("*") if path.is_file()]
    return {**transact(connected_cluster(settings).operator_url, count), "files": len(files)}


def hand_in(orchard: Terminal, tenant: str, purpose: str, content: str, *options: str) -> None:
    Path(f"{purpose}.csv").write_text(content)
    orchard("upload", tenant, "sales", purpose, f"{purpose}.csv", *options).worked()


def dry_run(orchard: Terminal, *words: str) -> dict[str, Any]:
    [found] = orchard("run", *words, "--dry-run", "--json").worked().json
    return found  # type: ignore[no-any-return]


def trained(found: dict[str, Any]) -> tuple[int, int, int]:
    return tuple(found["partitions"][name] for name in ("train", "reuse", "reject"))  # type: ignore[return-value]


def test_a_dry_run_tells_what_the_run_then_does_and_changes_nothing(
    orchard: Terminal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchard("tenants", "add", tenant_file(Path(), "planner")).worked()
    assert dry_run(orchard, "planner")["notes"] == ["it has no data yet"]
    hand_in(orchard, "planner", "history", history(), "--no-run")
    hand_in(orchard, "planner", "scoring", scoring(), "--no-run")

    before = remains(settings)
    first = dry_run(orchard, "planner", "sales")
    assert trained(first) == (6, 0, 0)
    assert (first["uploads"], first["rows_to_train"], first["rows_to_score"]) == (2, 240, 18)
    for what in ("cpu_s", "wall_s", "peak_mb", "storage_bytes"):
        assert 0 < first[what]["low"] < first[what]["expected"] < first[what]["high"], what
    assert 0 < float(first["charge"]["low"]) < float(first["charge"]["high"])
    assert first["charge"]["currency"] == "EUR"
    shown = orchard("run", "planner", "--dry-run").worked()
    assert "CPU seconds" in shown.out
    assert remains(settings) == before

    orchard("run", "planner").worked()
    assert {row["outcome"] for row in orchard("models", "planner", "sales", "--json").json} == {"trained"}
    settled = dry_run(orchard, "planner")
    assert trained(settled) == (0, 6, 0)
    assert settled["rows_to_score"] == 0, "all is scored with this release"
    assert settled["from"] == {"source": "own runs", "runs": 2}

    # two of six articles are touched, one of them is new and too small
    lines = history(5, first="2026-03-01").splitlines()
    chosen = [line for line in lines if line.startswith(("store", "1,1,"))] + ["3,9,2026-03-01,2.0,False,red,7.5"]
    hand_in(orchard, "planner", "history", "\n".join(chosen), "--no-run")
    before = remains(settings)
    partial = dry_run(orchard, "planner")
    assert trained(partial) == (1, 5, 1)
    assert partial["rows_to_train"] == 45
    assert remains(settings) == before
    orchard("run", "planner").worked()
    outcomes = [row["outcome"] for row in orchard("models", "planner", "sales", "--json").json]
    assert [outcomes.count(each) for each in ("trained", "reused", "rejected")] == [1, 5, 1]

    # a file that is too large to be read is told by its size: as many rows to a byte as before
    monkeypatch.setattr("flows.forecast_uploads.COUNTED_BYTES", 10)
    hand_in(orchard, "planner", "history", history(10, first="2026-04-01"), "--no-run")
    guessed = dry_run(orchard, "planner")
    [note] = guessed["notes"]
    assert "earlier files; its partitions are a guess" in note
    assert guessed["partitions"]["train"] > 0

    named = dry_run(orchard, "planner", "sales", "--partition", "store=2,sku=1", "--stage", "training")
    assert trained(named) == (1, 5, 1)
    orchard("run", "planner", "--partition", "store=9", "--dry-run").failed(2, "no partition")


def test_a_file_that_cannot_be_read_is_told(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "muddle")).worked()
    hand_in(orchard, "muddle", "history", "what,is,this\n1,2,3\n", "--no-run")
    found = dry_run(orchard, "muddle")
    assert found["notes"] == ["history.csv cannot be read: it will be rejected"]
    assert trained(found) == (0, 0, 0)


def test_a_run_that_may_cost_too_much_is_not_begun_unasked(orchard: Terminal, settings: Settings) -> None:
    orchard("tenants", "add", tenant_file(Path(), "foresighted")).worked()
    hand_in(orchard, "foresighted", "history", history(), "--no-run")
    before = remains(settings)
    orchard("run", "foresighted", "--ask-above", "0").failed(1, "nobody can be asked", "--yes", "--dry-run")
    orchard("run", "foresighted", "--ask-above", "a lot").failed(2, "no amount")
    assert remains(settings) == before
    orchard("run", "foresighted", "--ask-above", "1000").worked()
    assert remains(settings) != before, "what costs less is begun"
    orchard("run", "foresighted", "--ask-above", "0", "--yes", "--partition", "store=1,sku=1").worked()


def test_the_limit_may_be_a_setting(orchard: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    orchard("tenants", "add", tenant_file(Path(), "careful")).worked()
    hand_in(orchard, "careful", "history", history(), "--no-run")
    monkeypatch.setenv("ORCHARD_ASK_ABOVE", "0")
    orchard("run", "careful").failed(1, "nobody can be asked")
    orchard("run", "careful", "--ask-above", "1000000", "--dry-run").worked()
