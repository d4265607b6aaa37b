"""The audit at the command line: what is in it, exported, verified, and found out."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path
from typing import Any

from sqlalchemy import text

from infra.database.audit import Audit
from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.settings import Settings
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal
from tests.cli.test_runs import TRAINING, hand_in, started

ME = f"operator:{getpass.getuser()}"


def told(orchard: Terminal, tenant: str, *words: object) -> list[dict[str, Any]]:
    """The tenant's entries, the oldest first."""
    found: list[dict[str, Any]] = orchard("audit", "list", tenant, *words, "--json").worked().json
    return found[::-1]


def test_a_tenants_life_is_told(orchard: Terminal) -> None:
    started(orchard, "logged", estimators=["lightgbm"], training=TRAINING, gate={"approval": "manual"})
    orchard("releases", "approve", "logged", "sales").worked()
    hand_in(orchard, "logged", "history", history(20, first="2026-03-01", seed=3))
    hand_in(orchard, "logged", "scoring", scoring())
    orchard("releases", "approve", "logged", "sales").worked()
    orchard("releases", "rollback", "logged", "sales").worked()
    orchard("results", "logged", "sales", "--limit", 4).worked()
    orchard("quarantine", "logged", "sales").worked()
    changed = tenant_file(Path(), "logged", estimators=["lightgbm"], training=TRAINING, gate={"min_gain": 0.5})
    orchard("tenants", "add", changed, "--yes").worked()
    orchard("tenants", "add", changed).worked()  # unchanged
    orchard("releases", "rollback", "logged", "sales", "--to", 9).failed(2)  # what did not happen is not told
    orchard("releases", "approve", "logged", "sales").failed(2)
    entries = told(orchard, "logged")
    acts = [(entry["action"], entry["outcome"], entry["actor"], entry["origin"]) for entry in entries]
    promoted = ("release.promote", "done", "run:promotion", "flow")
    assert acts == [
        ("tenant.onboard", "done", ME, "cli"),
        ("upload", "done", ME, "cli"),
        promoted,
        ("release.approve", "done", ME, "cli"),
        ("upload", "done", ME, "cli"),
        promoted,
        ("upload", "done", ME, "cli"),
        ("release.approve", "done", ME, "cli"),
        ("release.rollback", "done", ME, "cli"),
        ("data.read", "done", ME, "cli"),
        ("data.read", "done", ME, "cli"),
        ("tenant.change", "done", ME, "cli"),
    ]
    details = [entry["details"] for entry in entries]
    assert {name: details[2][name] for name in ("use_case", "release", "alias")} == {
        "use_case": "sales", "release": 1, "alias": "challenger"
    }  # fmt: skip
    assert details[7:9] == [{"use_case": "sales", "release": 2}, {"use_case": "sales", "release": 1}]
    assert details[9] == {"use_case": "sales", "what": "predictions", "rows": 4}
    assert sorted(details[11]["changed"]) == ["sales.gate.approval", "sales.gate.min_gain"]
    assert ".csv" not in json.dumps(details)


def test_it_is_listed_by_time_and_action(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "sifted")).worked()
    orchard("keys", "create", "sifted", "--name", "x", "--role", "admin").worked()
    assert [entry["action"] for entry in told(orchard, "sifted")] == ["tenant.onboard", "key.create"]
    assert [entry["action"] for entry in told(orchard, "sifted", "--action", "key.create")] == ["key.create"]
    assert len(told(orchard, "sifted", "--since", "1h")) == len(told(orchard, "sifted", "--since", "2020-01-01")) == 2
    assert told(orchard, "sifted", "--since", "2999-01-01T00:00") == []
    assert [entry["action"] for entry in told(orchard, "sifted", "--limit", 1)] == ["key.create"]
    shown = orchard("audit", "list", "sifted").worked().out
    assert "key.create" in shown
    assert "role admin" in shown
    assert "no entries" in orchard("audit", "list", "nobody").worked().out
    orchard("audit", "list", "--since", "yesterday").failed(2, "neither a time")


def test_it_is_exported_whole(orchard: Terminal, settings: Settings) -> None:
    orchard("tenants", "add", tenant_file(Path(), "exported")).worked()
    assert "entries are in all.jsonl" in orchard("audit", "export", "--to", "all.jsonl").worked().err
    everything = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert [entry["entry"] for entry in everything] == list(range(1, len(everything) + 1))
    assert everything[-1]["action"] == "audit.export"
    assert all(re.fullmatch("[0-9a-f]{64}", entry[name]) for entry in everything for name in ("mac", "details_mac"))
    assert Path("all.jsonl").stat().st_mode & 0o777 == 0o600
    orchard("audit", "export", "exported", "--to", "one.jsonl").worked()
    own = [json.loads(line) for line in Path("one.jsonl").read_text().splitlines()]
    assert [entry["action"] for entry in own] == ["tenant.onboard", "audit.export"]
    assert {entry["tenant"] for entry in own} == {"exported"}
    assert sorted(path.name for path in Path().iterdir()) == ["all.jsonl", "exported.yaml", "one.jsonl"]


def test_what_was_changed_is_found(orchard: Terminal, settings: Settings) -> None:
    orchard("tenants", "add", tenant_file(Path(), "proved")).worked()
    answer = orchard("audit", "verify").worked()
    [anchor] = re.findall(r"anchor (\d+:[0-9a-f]{64})", answer.out)
    assert orchard("audit", "verify", "--anchor", anchor, "--json").worked().json["anchor"] == anchor
    orchard("audit", "verify", "--anchor", "7").failed(2, "no anchor")

    cluster, [entry] = connected_cluster(settings), told(orchard, "proved")
    number = entry["entry"]
    changes = ("DISABLE", f"UPDATE audit_details SET actor = '{{}}' WHERE entry = {number}", "ENABLE")

    def change(actor: str) -> None:
        for step in changes:
            statement = step.format(actor) if "UPDATE" in step else f"ALTER TABLE audit_details {step} TRIGGER USER"
            transact(cluster.operator_url, lambda connection, s=statement: connection.execute(text(s)))

    change("somebody")
    try:
        answer = orchard("audit", "verify").failed(1, f"details of entry {number} are not as they were", "backup")
        found = orchard("audit", "verify", "--json").failed(1).json
        assert found["entries"] == number - 1
        assert str(number) in found["wrong"]
    finally:
        change(ME)
    assert Audit(cluster).verify().wrong is None
