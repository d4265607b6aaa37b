"""Liveness, readiness, metrics, and what the API says of itself."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from deployments.api.app import create_app
from deployments.api.metrics import KEPT_S, PlatformCollector
from deployments.api.service import Nudge, is_loopback
from infra.database.cluster import Cluster
from infra.database.connect import session, transact
from infra.database.keys import Keys
from infra.settings import Settings, load_settings
from infra.space import open_space
from tasks.domain.access import Role
from tasks.domain.names import Stage
from tasks.domain.tenant import Isolation
from tests.api.conftest import MakeClient
from tests.api.served import Api, problem, serve, wait_for
from tests.serving.deployed import onboarded

KEY = "in/box/acme/sales/history/a.csv"


def figures(metrics: str) -> dict[tuple[str, ...], float]:
    """Values by (name, label values)."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }


def test_it_lives_and_is_ready(api: Api) -> None:
    with api.client() as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("url", [None, "postgresql://nobody:pw@127.0.0.1:1/none"], ids=["embedded", "elsewhere"])
def test_without_a_database_it_lives_and_is_not_ready(tmp_path: Path, url: str | None) -> None:
    settings = load_settings(home=tmp_path / "home", database_url=url)
    with serve(settings) as api, api.client(f"orc_{'x' * 43}") as client:
        assert client.get("/healthz").status_code == 200
        began = time.monotonic()
        answer = client.get("/readyz")
        assert problem(answer, 503, "unavailable") == "the database does not answer"
        assert answer.headers["Retry-After"]
        scraped = figures(client.get("/metrics").text)
        assert scraped["orchard_database_up",] == 0
        assert scraped["orchard_http_requests_total", "GET", "/readyz", "503"] == 1
        assert time.monotonic() - began < 3
        answer = client.get("/v1/uploads")
        assert "127.0.0.1" not in problem(answer, 503, "unavailable")
        assert "home" not in answer.text


def test_metrics(client: MakeClient, api: Api, api_settings: Settings) -> None:
    acme = client("api-figures")
    acme.post("/v1/sales/jobs", json={"kind": "refresh"})
    records = open_space(api_settings, "api-figures").records
    run = records.open_run(Stage.TRAINING, "sales", "figures")
    records.finish_run(run, {"partitions": 7, "trained": 4, "reused": 2, "rejected": 1, "failed": 0})
    acme.get("/v1/uploads/odd")
    acme.get("/nowhere")
    collector = PlatformCollector(api_settings)
    found = {(s.name, *s.labels.values()): s.value for family in collector.collect() for s in family.samples}
    for tier, slots in (("free", 1), ("standard", 2), ("premium", 4)):
        assert found["orchard_slots", tier] == slots
        assert found["orchard_slots_in_use", tier] >= 0
    assert found["orchard_jobs_waiting", "standard"] >= 1
    assert found["orchard_jobs_oldest_wait_seconds", "standard"] > 0
    assert found["orchard_run_seconds_count", "training"] >= 1
    assert found["orchard_run_seconds_sum", "training"] >= 0
    assert found["orchard_partitions_total", "trained"] >= 4
    assert found["orchard_partitions_total", "rejected"] >= 1
    assert found["orchard_database_up",] == 1
    with api.client() as anyone:
        answer = anyone.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        scraped = figures(answer.text)
    assert set(found) <= set(scraped) | {key for key in found if key[0].startswith("orchard_run_seconds")}
    assert scraped["orchard_http_requests_total", "POST", "/v1/{use_case}/jobs", "202"] >= 1
    assert scraped["orchard_http_requests_total", "GET", "/v1/uploads/{upload_id}", "422"] >= 1
    assert scraped["orchard_http_requests_total", "GET", "none", "404"] >= 1
    assert scraped["orchard_http_request_seconds_count", "POST", "/v1/{use_case}/jobs"] >= 1
    assert "api-" not in answer.text
    assert "orc_" not in answer.text


def test_the_database_is_read_every_five_seconds_at_most(api_settings: Settings, client: MakeClient) -> None:
    acme, now = client("api-scraped"), [0.0]
    collector = PlatformCollector(api_settings, clock=lambda: now[0])

    def waiting() -> float:
        family = next(each for each in collector.collect() if each.name == "orchard_jobs_waiting")
        return sum(float(sample.value) for sample in family.samples)

    before = waiting()
    acme.post("/v1/sales/jobs", json={"kind": "scoring"})
    now[0] = 4.9
    assert waiting() == before
    now[0] = 5.0
    assert waiting() == before + 1


def test_where_others_can_reach_it_metrics_need_the_secret_and_docs_are_gone(
    api_settings: Settings, keys: Keys, client: MakeClient
) -> None:
    with serve(api_settings.model_copy(update={"host": "0.0.0.0"})) as api:
        with api.client() as anyone:
            problem(anyone.get("/metrics"), 401, "unauthenticated")
            problem(anyone.get("/docs"), 404, "not-found")
            assert anyone.get("/healthz").status_code == 200
        with api.hook() as operator:
            assert operator.get("/metrics").status_code == 200
        with api.client(keys.create(None, "prometheus")[1]) as operator:
            assert operator.get("/metrics").status_code == 200
        with api.client(client("api-scrapes", role=Role.ADMIN).headers["Authorization"].split()[1]) as tenant:
            assert "operator's key" in problem(tenant.get("/metrics"), 403, "forbidden")


def test_what_is_loopback() -> None:
    for host, expected in {
        "127.0.0.1": True,
        "::1": True,
        "localhost": True,
        "0.0.0.0": False,
        "::": False,
        "a": False,
    }.items():
        assert is_loopback(host) is expected


def test_its_description_is_served(api: Api) -> None:
    with api.client() as client:
        page = client.get("/docs")
        assert page.status_code == 200
        named = re.findall(r'(?:src|href)="([^"]*)"', page.text)
        assert len(named) >= 3
        for file in named:  # none is another host's
            assert client.get(file).status_code == 200, file
        assert client.get("/openapi.json").json() == create_app(api.settings).openapi()


def test_every_answer_has_an_id(api: Api) -> None:
    with api.client() as client:
        for path in ("/healthz", "/nowhere", "/v1/uploads"):
            answer = client.get(path)
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "server" not in answer.headers
        assert client.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
        forged = client.get("/healthz", headers={"X-Request-ID": "a b"}).headers["X-Request-ID"]
        assert forged != "a b"
        problem(client.delete("/healthz"), 405, "method-not-allowed")


def test_what_nobody_foresaw_is_told_to_the_log_alone(api_settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    def break_down(path: str) -> None:
        raise RuntimeError("the hidden cause")

    body = {"detail-type": "Object Created", "detail": {"bucket": {"name": "files"}, "object": {"key": KEY}}}
    with serve(api_settings, announce=break_down) as api, api.hook() as hook:
        answer = hook.post("/hooks/s3", json=body)
        assert problem(answer, 500, "internal") == ""
        assert "hidden" not in answer.text
        assert hook.get("/healthz").status_code == 200
    assert "the hidden cause" in caplog.text
    assert f"request {answer.headers['X-Request-ID']} failed" in caplog.text


def test_a_flood_of_calls_is_few_dispatches() -> None:
    working, go_on, calls = threading.Event(), threading.Event(), []

    def dispatch() -> None:
        calls.append(1)
        working.set()
        go_on.wait(10)

    nudge = Nudge(dispatch)
    nudge()
    assert working.wait(10)
    for _ in range(100):
        nudge()
    go_on.set()
    wait_for(lambda: len(calls) == 2)
    nudge.close()


def test_it_asks_for_a_dispatch_when_it_starts(api_settings: Settings) -> None:
    with serve(api_settings) as api:
        wait_for(lambda: len(api.dispatches) == 1)


@pytest.mark.parametrize("headers", [{"X-Padding": "x" * 40_000}, {f"X-{number}": "x" for number in range(200)}])
def test_headers_without_measure_are_refused(api: Api, headers: dict[str, str]) -> None:
    with api.client() as client:
        problem(client.get("/healthz", headers=headers), 431, "large-headers")
        assert client.get("/healthz").status_code == 200


def test_a_silo_that_does_not_answer_hides_no_other_figures(api_settings: Settings, postgres: Cluster) -> None:
    onboarded(api_settings, postgres, "api-walled", isolation=Isolation.SILO)
    now = [0.0]
    collector = PlatformCollector(api_settings, clock=lambda: now[0])

    def partitions() -> float:
        [found] = [each for each in collector.collect() if each.name == "orchard_partitions"]
        return sum(sample.value for sample in found.samples)

    run = text(
        "INSERT INTO runs (tenant, use_case, stage, key, status, receipt) VALUES"
        """ ('api-walled', 'demand', 'training', 'k', 'finished', '{"trained"\\: 7}')"""
    )
    before = partitions()
    transact(postgres.silo_url("api-walled"), lambda connection: connection.execute(run))
    now[0] += KEPT_S
    assert partitions() == before + 7
    with session(postgres.silo_url("api-walled")) as busy:
        busy.execute(text("BEGIN"))
        busy.execute(text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
        now[0] += KEPT_S
        assert partitions() == before + 7  # as it was when it last answered: a counter must not fall
        busy.execute(text("ROLLBACK"))
