"""`python -m deployments.api`: the process as a supervisor runs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from deployments.api.__main__ import HEADROOM_MB
from deployments.api.lockouts import FAILURES
from deployments.api.process_metrics import ProcessFigures
from infra.settings import load_settings
from tests.api.served import wait_for
from tests.rights import may_be_real_time


def real_time(process: int) -> list[int]:
    """The threads of a process that come before all that compute."""
    threads = [int(thread) for thread in os.listdir(f"/proc/{process}/task")]
    return [each for each in threads if os.sched_getscheduler(each) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR]


def test_it_serves_and_its_log_holds_no_query_and_no_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHARD_", "PREFECT_"))}
    environment |= {"ORCHARD_HOME": str(tmp_path / "home"), "ORCHARD_API_PORT": str(port)}
    environment["ORCHARD_TRUSTED_PROXIES"] = "127.0.0.1"
    environment["PREFECT_SERVER_LOGGING_LEVEL"] = "INFO"  # an operator who wants to see more
    copies = tmp_path / "home" / "scratch" / "api"
    left = copies / "of-one-that-was-killed"
    left.mkdir(parents=True)
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "deployments.api"], env=environment, stdout=file, stderr=file)
    try:
        # There is no database, so its first dispatch fails; that has imported Prefect, which sets up all loggers anew.
        wait_for(lambda: "dispatch failed: DatabaseUnavailable" in log.read_text(), 60)
        [folder] = copies.iterdir()  # for releases from S3
        assert folder != left
        headers = {"Authorization": "Bearer orc_hidden-key"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
            assert client.get("/v1/uploads", params={"filename": "hidden-name"}).status_code == 401
            assert client.get("/odd%0Aline").status_code == 404
            assert client.get("/healthz").status_code == 200
            [_, limit] = psutil.Process(process.pid).rlimit(psutil.RLIMIT_DATA)[::-1]
            assert limit == (load_settings().serving_memory_mb + HEADROOM_MB) * 10**6  # a bomb bursts alone
            if may_be_real_time():
                wait_for(lambda: real_time(process.pid) == [process.pid])  # the event loop's thread and no other
            for address, expected in (("198.51.100.7", 429), ("198.51.100.8", 401)):  # each client by its own
                forwarded = {"X-Forwarded-For": f"203.0.113.9, {address}"}  # the first is what the client says itself
                for _ in range(FAILURES if expected == 429 else 1):
                    client.get("/v1/key", headers=forwarded)
                assert client.get("/v1/key", headers=forwarded).status_code == expected
        wait_for(lambda: "GET /healthz 200" in log.read_text())
    finally:
        process.terminate()
        code = process.wait(timeout=20)
    text = log.read_text()
    assert code in (0, -signal.SIGTERM), text
    assert "GET /v1/uploads 401" in text
    assert "GET /odd%0Aline 404" in text
    assert "198.51.100.7 is locked out for 60 s" in text
    assert "not in the audit: Report(action='access.lockout'" in text  # there is no database to take it
    assert "hidden" not in text
    assert "Traceback" not in text


def test_no_scrape_sees_less_than_the_one_before(tmp_path: Path) -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    requests, _ = (Counter("requests", "Requests.", registry=each) for each in registries)
    first, second = (ProcessFigures(tmp_path, each) for each in registries)

    def seen(by: ProcessFigures) -> float:
        samples = (sample for family in by.collect() for sample in family.samples)
        return next(each.value for each in samples if each.name == "requests_total" and each.labels["process"] == "0")

    first.start()
    second.start()
    try:
        for number in range(1, 4):
            requests.inc()
            assert [seen(first), seen(second)] == [number, number]
    finally:
        first.close()
        second.close()


def test_scrapes_at_the_same_time_do_not_take_an_ended_process_for_one_that_runs(tmp_path: Path) -> None:
    figures = [ProcessFigures(tmp_path, CollectorRegistry()) for _ in range(3)]
    Counter("requests", "Requests.", registry=figures[2]._own)
    for each in figures:
        each.start()
    figures[2].close()

    def scrape(by: ProcessFigures) -> int:
        return sum(len(list(by.collect())) for _ in range(500))

    try:
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(scrape, figures[:2])) == [0, 0]
    finally:
        for each in figures[:2]:
            each.close()


@pytest.mark.slow
def test_a_scrape_answers_for_all_processes(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHARD_", "PREFECT_"))}
    environment |= {"ORCHARD_HOME": str(tmp_path / "home"), "ORCHARD_API_PORT": str(port)}
    environment["ORCHARD_API_PROCESSES"] = "2"
    url = f"http://127.0.0.1:{port}"

    def counted() -> dict[str, float]:
        """How often each process says that `/healthz` was asked for."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", trust_env=False).text):
            for sample in family.samples:
                if sample.name == "orchard_releases_open":
                    found.setdefault(sample.labels["process"], 0)
                if sample.name == "orchard_http_requests_total" and sample.labels["route"] == "/healthz":
                    found[sample.labels["process"]] = sample.value
        return found

    def answers() -> bool:
        try:
            return counted().keys() == {"0", "1"}
        except httpx.TransportError:
            return False

    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "deployments.api"], env=environment, stdout=file, stderr=file)
    try:
        wait_for(answers, 90)
        asked = 0
        while min(counted().values()) < 5:  # each connection is a new one: the system gives it to either process
            assert asked < 1000, counted()
            assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
            asked += 1
        wait_for(lambda: sum(counted().values()) == asked, 5)
        for _ in range(20):  # whichever of them answers
            assert sum(counted().values()) == asked
        before = counted()
        workers = [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        wait_for(lambda: answers() and sorted(counted().values())[0] == 0, 60)  # its successor begins anew
        assert max(counted().values()) in before.values()
    finally:
        process.terminate()
        process.wait(timeout=30)
