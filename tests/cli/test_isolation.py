"""`orchard verify-isolation`, and the run that does it by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.attacks.attempt import Finding, Group, Outcome, denied, succeeded, unproven
from infra.attacks.scene import Scene
from infra.database.audit import Audit
from infra.database.cluster import connected_cluster
from infra.settings import Settings
from tasks.domain.errors import NotIsolated
from tests.cli.shop import tenant_file
from tests.cli.terminal import Terminal

GROUP = Group("storage")


@GROUP.attack("knocks at the door", quick=True)
def knock(scene: Scene) -> Finding:
    return denied(f"{scene.victim.tenant.id} does not open")


@GROUP.attack("looks <b>through</b> the window", quick=True)
def look(_: Scene) -> Finding:
    return unproven("it is dark")


@GROUP.attack("breaks the window")
def smash(_: Scene) -> Finding:
    return succeeded("there is a hole\nin it")


@pytest.fixture
def two(orchard: Terminal, tmp_path: Path) -> None:
    """Two tenants at least."""
    files = [tenant_file(tmp_path, name) for name in ("prover", "proved")]
    orchard("tenants", "add", *files, "--no-verify").worked()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attacks instead of hundreds, so that what is said of them can be known beforehand."""
    monkeypatch.setattr("flows.attacks.suite.GROUPS", (GROUP,))


def test_what_is_denied_is_said_and_written_down(orchard: Terminal, two: None, few: None, tmp_path: Path) -> None:
    answer = orchard("verify-isolation", "prover", "--victim", "proved", "--quick", "--report", tmp_path / "r").worked()
    assert "denied  storage/knock: knocks at the door" in answer.out
    assert "prover → proved: it is dark" in answer.out
    assert "2 attacks in 2 attempts: 1 denied, 0 succeeded, 1 unproven, 0 error" in answer.out
    assert "no attempt got through" in answer.out
    proof = json.loads((tmp_path / "r" / "proof.json").read_text())
    assert [each["why"] for each in proof["attempts"]] == ["proved does not open", "it is dark"]
    page = (tmp_path / "r" / "index.html").read_text()
    assert "looks &lt;b&gt;through&lt;/b&gt; the window" in page
    assert "proved does not open" in page


def test_what_gets_through_fails_the_command_and_is_audited(
    orchard: Terminal, two: None, few: None, settings: Settings
) -> None:
    answer = orchard("verify-isolation", "prover", "--victim", "proved", "--json").failed(1)
    assert answer.json["holds"] is False
    assert [each["outcome"] for each in answer.json["attempts"]] == ["denied", "unproven", "succeeded"]
    assert answer.json["attempts"][2]["why"] == "there is a hole in it"
    assert (Path(answer.json["report"])).parent.parent == settings.home / "reports" / "isolation"
    [entry] = (
        Audit(connected_cluster(settings)).entries("prover", action="isolation.verified", limit=1).to_dict("records")
    )
    assert entry["outcome"] == "failed"
    assert entry["details"]["counts"] == {"denied": 1, "succeeded": 1, "unproven": 1, "error": 0}


@pytest.mark.parametrize(
    ("words", "says"),
    [(("nobody",), "there is no tenant 'nobody'"), (("prover", "--victim", "prover"), "attacked by itself")],
)
def test_wrong_use(orchard: Terminal, two: None, few: None, words: tuple[str, ...], says: str) -> None:
    orchard("verify-isolation", *words).failed(2, says)


def test_the_run_that_proves_it_fails_when_something_gets_through(two: None, few: None, platform: None) -> None:
    from flows.verification import verify_isolation

    assert verify_isolation("prover", "proved", quick=True) == {"denied": 1, "succeeded": 0, "unproven": 1, "error": 0}
    with pytest.raises(NotIsolated, match="1 attempts of one tenant on another got through") as caught:
        verify_isolation("prover", "proved")
    assert "storage/smash (there is a hole in it)" in caught.value.found


def test_prefect_itself_refuses_tenants(two: None, platform: None, settings: Settings) -> None:
    from flows.attacks import events
    from infra.attacks.scene import prepared

    asked = [attack for attack in events.GROUP if attack.name.startswith("prefect-")]
    with prepared(settings, "prover", "proved") as scene:
        attempts = [attack.attempt(scene) for attack in asked]
    assert len(attempts) == 5
    assert [each for each in attempts if each.outcome is not Outcome.DENIED] == []


def test_a_new_tenant_is_attacked_and_attacks_at_onboarding(
    orchard: Terminal, two: None, few: None, tmp_path: Path
) -> None:
    answer = orchard("tenants", "add", tenant_file(tmp_path, "newcomer"), "--verify").worked()
    assert "isolation of newcomer: 2 attacks in 4 attempts: 2 denied, 0 succeeded, 2 unproven, 0 error" in answer.out
    assert "isolation" not in orchard("tenants", "add", tenant_file(tmp_path, "newcomer"), "--verify").worked().out


def test_onboarding_fails_loudly_where_tenants_are_not_kept_apart(
    orchard: Terminal, two: None, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group("open")
    group.add("door", "walks in", lambda _: succeeded("it was open"), quick=True)
    monkeypatch.setattr("flows.attacks.suite.GROUPS", (group,))
    answer = orchard("tenants", "add", tenant_file(tmp_path, "unlucky"), "--verify")
    assert answer.code == 1
    assert "unlucky (standard): onboarded" in answer.out
    assert "succeeded  open/door: walks in" in answer.out


def test_the_quick_proof_is_quick(orchard: Terminal, two: None) -> None:
    answer = orchard("verify-isolation", "prover", "--victim", "proved", "--quick", "--json").worked()
    assert {each["group"] for each in answer.json["attempts"]} >= {"storage", "sql", "api", "events", "caches", "names"}
