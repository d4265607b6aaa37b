"""What is answered on the spot, and what goes the usual way, as it came."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.api.app import create_app
from deployments.api.at_once import SMALL_BYTES, AtOnce
from deployments.api.keyring import Keyring
from deployments.api.metrics import RequestMetrics
from deployments.api.requests import Requests
from deployments.api.service import Service
from deployments.serving.answers import FEW_ROWS, Asked, answer
from deployments.serving.limits import RateLimits
from deployments.serving.tables import ARROW
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.errors import StorageUnavailable
from tasks.domain.tenant import Tier
from tests.serving.deployed import deploy, onboarded

ROW = {"store": 0, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"}
USUAL = 299


async def usual(scope: Scope, receive: Receive, send: Send) -> None:
    """Says that it was asked, and what."""
    await Response(await Request(scope, receive).body(), USUAL)(scope, receive, send)


class Asking:
    """Sends predictions to the middleware, with the usual way replaced by something that says so."""

    def __init__(self, service: Service, key: str) -> None:
        self._app = Requests(AtOnce(usual, service), RequestMetrics(CollectorRegistry()))
        self._key = key

    def __call__(
        self, content: Any, headers: dict[str, str] | None = None, params: dict[str, str] | None = None
    ) -> httpx.Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://api") as client:
                said = {"Authorization": f"Bearer {self._key}", **(headers or {})}
                answered = await client.post("/v1/demand/predict", content=body, headers=said, params=params)
                if answered.status_code == USUAL:
                    assert answered.content == body
                return answered

        return asyncio.run(send())


@pytest.fixture
def service(api_settings: Settings, postgres: Cluster, tmp_path: Path) -> Service:
    deploy(onboarded(api_settings, postgres, "api-at-once", Tier.FREE), tmp_path)
    found = create_app(api_settings).state.service
    assert isinstance(found, Service)
    # Time stands still: keys stay known, and no limit is given back.
    keyring = Keyring(api_settings, clock=lambda: 0.0)
    return replace(found, keyring=keyring, limits=RateLimits(clock=lambda: 0.0))


def test_only_what_is_in_memory_is_answered_on_the_spot(service: Service, postgres: Cluster) -> None:
    _, key = Keys(postgres).create("api-at-once", "test", Role.READER)
    ask, one = Asking(service, key), {"rows": [ROW]}
    assert ask(one).status_code == USUAL  # nobody knows the key
    assert service.keyring.holder(key) is not None
    assert ask(one).status_code == USUAL  # the release is not open
    serving = service.releases.serving("api-at-once", "demand")
    assert ask(one).status_code == USUAL  # the model is not in memory
    expected = answer(service, serving, Asked([ROW]))
    said = ask(one)
    assert said.status_code == 200
    assert said.json() == {
        "request_id": said.headers["X-Request-ID"], "use_case": "demand", "release": 1, "rows": expected
    }  # fmt: skip
    assert ask({"rows": [{**ROW, "store": 1}]}).json()["rows"][0]["answer"] == "naive"  # which needs no model

    for content, headers, params in (
        (one, {"Content-Type": ARROW}, {}),
        (one, {"Accept": ARROW}, {}),
        (one, {}, {"explain": "true"}),
        ({"rows": [ROW] * (FEW_ROWS + 1)}, {}, {}),
        ({"rows": [ROW, {**ROW, "store": 2}]}, {}, {}),
        ({"rows": [{**ROW, "store": 99}]}, {}, {}),  # the tenant-wide model is not in memory
        (json.dumps(one).encode().ljust(SMALL_BYTES + 1), {}, {}),
        (one, {"Authorization": "Bearer nobody"}, {}),
    ):
        assert ask(content, headers, params).status_code == USUAL
    for content, status in ((b"{", 400), ({"rows": [{**ROW, "price": "dear"}]}, 422), ({"rows": [3]}, 422)):
        refused = ask(content)
        assert refused.status_code == status
        assert refused.json()["request_id"] == refused.headers["X-Request-ID"]
    assert ask(one, {"Orchard-Tenant": "api-other"}).status_code == 403


def test_it_counts_what_it_answers_and_what_it_leaves_once(service: Service, postgres: Cluster) -> None:
    _, key = Keys(postgres).create("api-at-once", "test", Role.READER)
    ask, one = Asking(service, key), {"rows": [ROW]}
    assert service.keyring.holder(key) is not None
    serving = service.releases.serving("api-at-once", "demand")
    for _ in range(20):
        assert ask(one).status_code == USUAL  # the limit is that of the usual way
    answer(service, serving, Asked([ROW]))
    rate = serving.space.policy.requests_per_s
    codes = [ask(one).status_code for _ in range(int(2 * rate) + 2)]
    assert codes == [200] * int(2 * rate) + [429] * 2
    meter = service.meter
    assert sum(used.requests for used in meter._waiting.values()) == len(codes)


def test_a_model_that_cannot_be_loaded_any_more_is_told_as_ever(
    service: Service, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = Keys(postgres).create("api-at-once", "test", Role.READER)
    ask, one = Asking(service, key), {"rows": [ROW]}
    assert service.keyring.holder(key) is not None
    serving = service.releases.serving("api-at-once", "demand")
    answer(service, serving, Asked([ROW]))

    def evicted(*_: object) -> object:  # between the look at what is in memory and its use, as no test can time it
        raise StorageUnavailable("the file is away")

    monkeypatch.setattr(serving.scorer, "answer", evicted)
    assert ask(one).status_code == 503
