"""What supervisord is told, and what is done without it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest

from deployments.supervision.configuration import socket_path, write_configuration
from deployments.supervision.down import down
from deployments.supervision.logs import following_lines, last_lines
from deployments.supervision.parts import Ports, Stage, choose_ports, environment_of, parts_of
from deployments.supervision.supervisor import server_url
from infra.settings import Settings, load_settings

PORTS = Ports(4200, 5000, 5001, 8080)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="orchard-supervision-") as folder:
        yield Path(folder) / "home"


@pytest.fixture
def settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith(("ORCHARD_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    return load_settings(home=home)


def names(settings: Settings) -> set[str]:
    return {part.name for part in parts_of(settings, PORTS)}


def test_what_the_settings_put_elsewhere_is_no_part(settings: Settings, home: Path) -> None:
    everything = names(settings)
    elsewhere = {
        "database_url": ("postgresql://a:b@c/d", "postgresql"),
        "prefect_api_url": ("http://prefect/api", "prefect"),
        "training_registry_uri": ("https://mlflow", "mlflow-training"),
        "production_registry_uri": ("https://mlflow", "mlflow-production"),
    }
    for setting, (value, part) in elsewhere.items():
        assert everything - names(load_settings(home=home, **{setting: value})) == {part}
    assert names(load_settings(home=home, training_registry_uri="postgresql://a:b@c/d")) == everything


def test_the_database_starts_first_and_the_work_stops_first(settings: Settings) -> None:
    stages = {part.name: part.stage for part in parts_of(settings, PORTS)}
    assert stages["postgresql"] is Stage.DATABASE
    assert stages["prefect"] is stages["mlflow-training"] is Stage.SERVERS
    assert {stage for name, stage in stages.items() if name.startswith("worker-")} == {Stage.WORK}
    assert stages["api"] is stages["inbox"] is Stage.WORK


def test_the_file_holds_no_secret_and_survives_odd_paths(settings: Settings, home: Path) -> None:
    odd = home / "100% odd"
    path = write_configuration(odd, parts_of(settings, PORTS))
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    for secret in (settings.prefect_auth().partition(":")[2], settings.secret_key.get_secret_value()):
        assert secret not in text
    parser = RawConfigParser()
    parser.read_string(text)
    assert parser["supervisord"]["logfile"] % {} == str(odd / "logs" / "supervisord.log")  # as supervisord expands it


def test_a_worker_that_stops_leaves_its_runs_alone(settings: Settings, home: Path) -> None:
    parser = RawConfigParser()
    parser.read(write_configuration(home, parts_of(settings, PORTS)))
    worker, api = parser["program:worker-tier-free"], parser["program:api"]
    assert (worker["stopasgroup"], worker["killasgroup"]) == ("false", "false")
    assert (api["stopasgroup"], api["killasgroup"]) == ("true", "true")
    assert parser["program:postgresql"]["stopsignal"] == "INT"


def test_no_two_servers_get_the_same_port(settings: Settings, home: Path) -> None:
    crowded = load_settings(home=home, prefect_port=23000, mlflow_port=23000, api_port=23000)
    ports = choose_ports(crowded)
    assert len(set(ports)) == 4
    assert min(ports) >= 23000


def test_a_server_elsewhere_keeps_the_login_that_the_operator_has_set(settings: Settings, home: Path) -> None:
    assert environment_of(settings, PORTS)["PREFECT_API_AUTH_STRING"] == settings.prefect_auth()
    external = load_settings(home=home, prefect_api_url="http://prefect/api")
    assert "PREFECT_API_AUTH_STRING" not in environment_of(external, PORTS)
    assert environment_of(external, PORTS)["PREFECT_API_URL"] == "http://prefect/api"


def test_a_deep_home_has_its_socket_elsewhere(home: Path) -> None:
    deep = home / ("deep-" * 20)
    path = socket_path(deep)
    try:
        assert len(str(path)) < 90
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert socket_path(deep) == path
    finally:
        path.parent.rmdir()


def test_down_asks_a_run_to_stop_whose_worker_is_gone(settings: Settings, home: Path) -> None:
    """The run is told by supervisord's mark in its environment, and gets the time to say how it ended."""
    said = home / "said"
    code = f"""
import signal, sys, time
def stop(*_):
    time.sleep(0.5)
    open({str(said)!r}, "w").write("handed back")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
    mark = {"SUPERVISOR_SERVER_URL": server_url(home), "SUPERVISOR_PROCESS_NAME": "worker-tier-free"}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | mark, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        assert down(settings) == []
        assert run.wait(timeout=1) == 0
    assert said.read_text() == "handed back"


def test_last_lines_are_read_from_the_end(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {number} {'x' * 1000}\n" for number in range(1000)))
    assert [line.split()[1] for line in last_lines(log, 3)] == ["997", "998", "999"]
    assert len(last_lines(log, 5000)) == 1000
    assert last_lines(log, 0) == []


def test_a_log_is_followed_into_the_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.supervision.logs.POLL_S", 0.01)
    log = tmp_path / "a.log"
    log.write_text("old\n")
    writer = f"""
import os, time
time.sleep(0.3)
open({str(log)!r}, "a").write("new\\n")
time.sleep(0.3)
os.rename({str(log)!r}, {str(log) + ".1"!r})
open({str(log)!r}, "w").write("newest\\n")
"""
    lines = following_lines(log)
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", writer]):
        assert [next(lines), next(lines)] == ["new", "newest"]
    lines.close()
    assert time.monotonic() - started < 10
