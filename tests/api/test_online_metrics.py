"""What is in memory, in figures; and with something in memory, the API is ready although the database is away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from infra import postgres as embedded
from infra.database.cluster import Cluster, started_cluster
from infra.database.keys import Keys
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.tenant import Tier
from tests.api.served import Api, problem, serve
from tests.api.test_health import figures
from tests.serving.deployed import deploy, onboarded

ROW = {"store": 0, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"}


def scraped(client: httpx.Client) -> dict[tuple[str, ...], float]:
    return figures(client.get("/metrics").text)


def test_models_in_memory_are_counted(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Keys, tmp_path: Path
) -> None:
    deploy(onboarded(api_settings, postgres, "api-counted", Tier.PREMIUM), tmp_path)
    with api.client(keys.create("api-counted", "test", Role.READER)[1]) as client:
        before = scraped(client)
        for store in (0, 2, 0, 0):
            assert client.post("/v1/demand/predict", json={"rows": [{**ROW, "store": store}]}).status_code == 200
        text = client.get("/metrics").text
        after = figures(text)
    grown = {name: after[name] - before[name] for name in after.keys() & before.keys()}
    assert grown["orchard_models", "premium"] == 2
    assert grown["orchard_models", "free"] == 0
    assert grown["orchard_models_bytes", "premium"] > 2 * 4096
    assert grown["orchard_model_misses_total",] == 2
    assert grown["orchard_model_hits_total",] == 2
    assert grown["orchard_releases_open",] == 1
    assert after["orchard_stale_seconds",] == 0
    assert "api-counted" not in text
    assert "demand" not in text


def test_with_a_release_in_memory_it_is_ready_and_readers_keep_no_prediction_waiting(
    own: Settings, tmp_path: Path
) -> None:
    cluster = started_cluster(own)
    space = onboarded(own, cluster, "dark", Tier.PREMIUM)
    deploy(space, tmp_path)
    with serve(own) as api, api.client(Keys(cluster).create("dark", "test", Role.READER)[1]) as client:
        assert client.post("/v1/demand/predict", json={"rows": [ROW]}).status_code == 200
        embedded.stop(own.home)
        assert client.get("/readyz").json() == {"status": "ready"}

        def read(_: int) -> httpx.Response:
            return client.get("/v1/demand/predictions")

        with ThreadPoolExecutor(60) as pool:
            readings = [pool.submit(read, number) for number in range(60)]
            for _ in range(10):
                began = time.monotonic()
                assert client.post("/v1/demand/predict", json={"rows": [ROW]}).status_code == 200
                assert time.monotonic() - began < 2
            for each in readings:
                problem(each.result(), 503, "unavailable")
