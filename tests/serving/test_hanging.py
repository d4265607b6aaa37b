"""PostgreSQL takes what it is sent and says nothing: its processes are stopped, not dead."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.serving.breaker import WITHIN_S
from deployments.serving.releases import REFRESH_S, STALE_S
from deployments.serving.tables import ARROW
from infra import postgres
from infra.database.cluster import started_cluster
from infra.database.connect import transact
from infra.database.deadline import within
from infra.database.keys import Keys
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.errors import DatabaseUnavailable
from tasks.domain.tenant import Tier
from tests.api.served import problem, serve, wait_for
from tests.api.test_health import figures
from tests.serving.deployed import deploy, onboarded

ROW = {"store": 0, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"}
SOON_S = WITHIN_S + 2.5
"""A request that is the first to find the database silent waits for it, or for a new connection, and for no longer."""


@contextmanager
def hanging(settings: Settings) -> Iterator[None]:
    """All processes of PostgreSQL are stopped until the block ends."""
    address = postgres.address(settings.home)
    assert address is not None
    server = psutil.Process(address.pid)
    stopped = [server, *server.children(recursive=True)]
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)


def test_a_deadline_ends_what_the_database_does_not(own: Settings) -> None:
    url = started_cluster(own).operator_url

    def ask(seconds: float) -> int:
        with within(seconds):
            return transact(url, lambda c: c.exec_driver_sql("SELECT 1").scalar_one(), patient=False)

    assert ask(5) == 1
    with hanging(own):
        for _ in range(3):  # with a connection that is open, and without
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                ask(0.5)
            assert time.monotonic() - began < 3
    assert ask(5) == 1
    with within(0.2):  # what goes back to its pool in time is not broken off afterwards
        transact(url, lambda c: c.exec_driver_sql("SELECT 1"))
    time.sleep(0.3)
    assert ask(5) == 1


@pytest.mark.slow
def test_what_is_in_memory_goes_on_answering_and_says_so(own: Settings, tmp_path: Path) -> None:
    cluster = started_cluster(own)
    deploy(onboarded(own, cluster, "calm", Tier.PREMIUM), tmp_path / "calm")
    deploy(onboarded(own, cluster, "stored", Tier.PREMIUM, precomputed_s=60), tmp_path / "stored")
    deploy(onboarded(own, cluster, "late", Tier.PREMIUM), tmp_path / "late")
    keys = Keys(cluster)
    calm, stored, late = (keys.create(name, "test", Role.READER) for name in ("calm", "stored", "late"))
    _, unseen = keys.create("calm", "unseen", Role.READER)
    with (
        serve(own) as api,
        api.client(calm[1]) as client,
        api.client(stored[1]) as looking,
        api.client(late[1]) as known,
        api.client(unseen) as stranger,
    ):

        def predict(by: httpx.Client, store: int = 0) -> tuple[httpx.Response, float]:
            began = time.monotonic()
            answer = by.post("/v1/demand/predict", json={"rows": [{**ROW, "store": store}]})
            return answer, time.monotonic() - began

        for each in (client, looking):
            assert predict(each)[0].status_code == 200
        assert known.get("/v1/key").status_code == 200  # its release is not open
        with hanging(own):
            began, slow, last = time.monotonic(), 0, None
            with ThreadPoolExecutor(8) as pool:
                while time.monotonic() - began < STALE_S + 3:
                    asked = [pool.submit(predict, client), pool.submit(predict, client, 2)]
                    asked.append(pool.submit(predict, looking))
                    for answer, took_s in [each.result() for each in asked]:
                        assert answer.status_code == 200, answer.text
                        assert took_s < SOON_S
                        slow += took_s > WITHIN_S / 2
                        last = answer.json()
                    time.sleep(0.05)
            assert last is not None
            assert last["stale_s"] >= STALE_S
            table = client.post("/v1/demand/predict", json={"rows": [ROW]}, headers={"Accept": ARROW})
            assert float(table.headers["Orchard-Stale-Seconds"]) >= STALE_S
            assert slow <= 6  # the first of each kind, and nobody after them
            for other in (stranger, known):  # who cannot be answered hears so
                answer, took_s = predict(other)
                problem(answer, 503, "unavailable")
                assert took_s < SOON_S
            assert client.get("/readyz").json() == {"status": "ready"}
            assert figures(client.get("/metrics").text)["orchard_database_up",] == 0
        wait_for(lambda: predict(stranger)[0].status_code == 200, REFRESH_S + 2)
        assert "stale_s" not in predict(client)[0].json()
        wait_for(lambda: predict(known)[0].status_code == 200, REFRESH_S + 2)
        keys.revoke("calm", calm[0])
        wait_for(lambda: predict(client)[0].status_code == 401, 5)
