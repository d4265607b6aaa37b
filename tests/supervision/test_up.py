"""`orchard up` and `down`, as an operator types them, in a home and on ports of their own."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import make_url

from tasks.domain.events import BUDGET_EXCEEDED
from tests.cli.shop import history, tenant_file
from tests.cli.terminal import ORCHARD

PORTS = {"ORCHARD_PREFECT_PORT": "14200", "ORCHARD_MLFLOW_PORT": "15000", "ORCHARD_API_PORT": "18080"}
PARTS = {
    "postgresql", "prefect", "mlflow-training", "mlflow-production", "api", "inbox",
    "worker-tier-free", "worker-tier-standard", "worker-tier-premium", "worker-operations",
}  # fmt: skip
UP_TIMEOUT_S = 240
OVERHEAD = """
from sqlalchemy import text
from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.settings import load_settings
query = text("SELECT part FROM overhead GROUP BY part HAVING sum(cpu_s) > 0")
print(*transact(connected_cluster(load_settings()).operator_url, lambda connection: connection.scalars(query).all()))
"""
pytestmark = pytest.mark.slow  # about three minutes
KEPT = """
from deployments.platform import running_platform
from infra.settings import load_settings
with running_platform(load_settings(), prefect=True, keep=True):
    pass
"""
PREFECT = """
from deployments.platform import running_platform
from infra.settings import load_settings
with running_platform(load_settings(), prefect=True):
    from prefect.client.orchestration import get_client
    from prefect.states import Running
    with get_client(sync_client=True) as client:
        {code}
"""
LEAVE_A_RUN = """deployment = client.read_deployment_by_name("retention/retention")
        print(client.create_flow_run_from_deployment(deployment.id, state=Running()).id)"""

TOLD = f"""
from deployments.platform import running_platform
from infra.settings import load_settings
with running_platform(load_settings(), prefect=True):
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        wanted = {{"filter": {{"event": {{"name": ["{BUDGET_EXCEEDED}"]}}}}}}
        events = client.request("POST", "/events/filter", json=wanted).json()["events"]
        print(*(each["payload"]["tenant"] for each in events))
"""


class Operator:
    """Types `orchard` commands for one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHARD_", "PREFECT_"))}
        self._environment = {**clean, **PORTS, "ORCHARD_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self._run([str(ORCHARD), *words])

    def started(self, *words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([str(ORCHARD), *words], stdout=pipe, stderr=pipe, text=True, env=self._environment)

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-c", code])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=UP_TIMEOUT_S, env=self._environment)

    def status(self, *options: str) -> dict[str, Any]:
        answer = self("status", "--json", *options)
        assert answer.returncode == 0, answer.stderr
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    def parts(self) -> dict[str, dict[str, Any]]:
        return {part["part"]: part for part in self.status()["parts"]}

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this home: told by its environment, its command line or its folder."""
        marks = (str(self.home),)
        return [each for each in psutil.process_iter() if any(mark in _traces(each) for mark in marks)]


def _traces(process: psutil.Process) -> str:
    found = []
    for ask in (process.environ, process.cmdline, process.cwd):
        try:
            found.append(str(ask()))
        except (psutil.Error, OSError):
            continue
    return " ".join(found)


def until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.5)


def get(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def operator() -> Iterator[Operator]:
    with tempfile.TemporaryDirectory(prefix="orchard-up-") as folder:
        operator = Operator(Path(folder) / "home")
        try:
            yield operator
        finally:
            operator("down")


@pytest.fixture(scope="module")
def up(operator: Operator) -> Operator:
    kept = operator.python(KEPT)
    assert kept.returncode == 0, kept.stderr
    answer = operator("up")
    assert answer.returncode == 0, answer.stderr
    assert "taking over: stopped prefect, postgresql" in answer.stderr
    assert "worker-operations is ready" in answer.stderr
    assert "orchard status --show-secrets" in answer.stdout
    return operator


def test_every_part_is_healthy(up: Operator) -> None:
    facts = up.status()
    parts = {part["part"]: part for part in facts["parts"]}
    assert set(parts) == PARTS
    assert {name: part["reason"] for name, part in parts.items() if part["health"] != "healthy"} == {}
    assert all(psutil.pid_exists(part["pid"]) and part["uptime_s"] >= 0 for part in parts.values())
    for name in ("prefect_api_url", "prefect_ui_url", "api_url", "mlflow_training_url", "mlflow_production_url"):
        assert facts[name].startswith("http://127.0.0.1:"), facts[name]
    shown = up("status").stdout
    assert all(name in shown for name in PARTS)


def test_a_second_up_changes_nothing(up: Operator) -> None:
    before = {name: part["pid"] for name, part in up.parts().items()}
    answer = up("up")
    assert answer.returncode == 0, answer.stderr
    assert "already up" in answer.stdout
    assert {name: part["pid"] for name, part in up.parts().items()} == before


def test_what_serves_everybody_is_metered(up: Operator) -> None:
    """Servers, workers, and the runs of the platform itself: dispatch has one every few seconds."""
    until(lambda: {"runs", "api", *PARTS - {"inbox"}} <= set(up.python(OVERHEAD).stdout.split()), timeout_s=150)


def test_prefect_has_a_login_and_the_secrets_are_shown_on_request_only(up: Operator) -> None:
    secret = up.status("--show-secrets")
    login = secret["prefect_login"]
    closed = [json.dumps(up.status()), up("status").stdout]
    assert not any(login in text or secret["hook_secret"] in text for text in closed)
    api = secret["prefect_api_url"]
    assert get(f"{api}/ready") == 200
    assert get(f"{api}/admin/version") == 401
    basic = base64.b64encode(login.encode()).decode()
    assert get(f"{api}/admin/version", Authorization=f"Basic {basic}") == 200
    post = urllib.request.Request(
        f"{api}/flows/filter", b"{}", {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):  # no CSRF token
        urllib.request.urlopen(post, timeout=5)


def test_secrets_are_on_no_command_line_and_in_no_open_file(up: Operator) -> None:
    secret = up.status("--show-secrets")
    password = make_url(secret["database_url"]).password
    assert password
    words = [secret["prefect_login"].partition(":")[2], secret["hook_secret"], password]
    lines = [" ".join(process.cmdline()) for process in up.processes()]
    configuration = up.home / "run" / "supervisord.conf"
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    assert stat.S_IMODE((up.home / "run" / "supervisord.sock").stat().st_mode) == 0o600
    logs = [path.read_text(errors="replace") for path in (up.home / "logs").glob("*.log")]
    for text in (*lines, configuration.read_text(), *logs):
        assert not any(word in text for word in words)


@pytest.mark.parametrize("name", ["prefect", "postgresql", "worker-tier-free", "mlflow-training"])
def test_what_is_killed_comes_back(up: Operator, name: str) -> None:
    before = up.parts()[name]
    psutil.Process(before["pid"]).kill()
    until(lambda: up.parts()[name]["pid"] not in (None, before["pid"]))
    until(lambda: all(part["health"] == "healthy" for part in up.parts().values()))
    back = up.parts()[name]
    assert back["url"] == before["url"]
    until(lambda: up.parts()[name]["uptime_s"] > 6, timeout_s=20)  # and stays: nothing that outlived it is in its way
    assert up.parts()[name]["pid"] == back["pid"]


def test_a_part_that_lives_but_does_not_answer_is_unhealthy(up: Operator) -> None:
    prefect = psutil.Process(up.parts()["prefect"]["pid"])
    prefect.suspend()
    try:
        part = up.parts()["prefect"]
    finally:
        prefect.resume()
    assert (part["health"], part["process"], part["pid"]) == ("unhealthy", "running", prefect.pid)
    assert "no answer at" in part["reason"]
    until(lambda: up.parts()["prefect"]["health"] == "healthy")


def test_commands_use_what_is_up(up: Operator) -> None:
    before = {name: part["pid"] for name, part in up.parts().items()}
    answer = up("tenants", "list", "--json")
    assert answer.returncode == 0, answer.stderr
    assert {name: part["pid"] for name, part in up.parts().items()} == before


def test_a_budget_that_is_spent_when_it_is_set_is_told_to_what_is_up(up: Operator, tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text(history())
    for words in (
        ("tenants", "add", str(tenant_file(tmp_path, "spender", estimators=["linear"])), "--no-verify"),
        ("upload", "spender", "sales", "history", str(file)),
    ):
        done = up(*words)
        assert done.returncode == 0, done.stderr
    answer = up("budgets", "set", "spender", "--hard", "0.000002")
    assert (answer.returncode, answer.stderr) == (0, "")  # nor is there a word of a server of Prefect's own making
    until(lambda: "spender" in up.python(TOLD).stdout.split(), timeout_s=30)
    assert up("budgets", "remove", "spender").stderr == ""


def test_logs_are_listed_and_shown(up: Operator) -> None:
    listed = {log["part"]: log for log in json.loads(up("logs", "--json").stdout)}
    assert set(listed) >= PARTS | {"supervisord"}
    assert listed["prefect"]["size_bytes"] > 0
    assert "postgresql" in up("logs").stdout
    lines = up("logs", "supervisord", "--lines", "2").stdout.splitlines()
    assert len(lines) == 2
    unknown = up("logs", "nothing")
    assert unknown.returncode == 2
    assert "prefect" in unknown.stderr


def test_a_part_that_is_stopped_is_started_by_another_up(up: Operator) -> None:
    from deployments.supervision.supervisor import Supervisor

    Supervisor(up.home).stop(["inbox"])
    assert up.parts()["inbox"]["health"] == "stopped"
    answer = up("up")
    assert answer.returncode == 0, answer.stderr
    assert up.parts()["inbox"]["health"] == "healthy"


def test_down_leaves_nothing_behind(up: Operator) -> None:
    answer = up("down")
    assert answer.returncode == 0, answer.stderr
    assert all(name in answer.stdout for name in PARTS)
    assert up.processes() == []
    left = [path.name for path in (up.home / "run").rglob("*") if path.is_file() or path.is_socket()]
    assert left == []
    assert not (up.home / "postgres" / "postmaster.pid").exists()
    again = up("down")
    assert (again.returncode, again.stdout.strip()) == (0, "nothing was running")
    assert {part["health"] for part in up.parts().values()} == {"stopped"}


def test_after_a_power_cut_an_up_that_was_killed_is_taken_up_by_the_next(operator: Operator) -> None:
    """After `down`. A run of no job was under way when the power went: it would hold its pool's slot for ever."""
    assert operator("up").returncode == 0
    left = operator.python(PREFECT.format(code=LEAVE_A_RUN))
    assert left.returncode == 0, left.stderr
    for process in operator.processes():
        process.kill()
    until(lambda: operator.processes() == [])
    with operator.started("up") as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "preparing the databases" in line:
                break
        first.kill()
    answer = operator("up")
    assert answer.returncode == 0, answer.stderr
    assert {part["health"] for part in operator.parts().values()} == {"healthy"}
    state = operator.python(PREFECT.format(code=f"print(client.read_flow_run({left.stdout.strip()!r}).state.name)"))
    assert state.stdout.strip() == "Crashed", state.stderr
    assert operator("down").returncode == 0


def test_what_does_not_come_up_says_why_and_leaves_nothing(operator: Operator) -> None:
    """After `down`: the database's configuration is broken, so its log is what the operator needs to see."""
    configuration = operator.home / "postgres" / "postgresql.conf"
    whole = configuration.read_text()
    configuration.write_text(f"{whole}\nno_such_setting = 1\n")
    try:
        answer = operator("up")
    finally:
        configuration.write_text(whole)
    assert answer.returncode == 1
    assert "postgresql did not come up" in answer.stderr
    assert "no_such_setting" in answer.stderr
    assert operator.processes() == []
