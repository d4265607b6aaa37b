"""What requests use is booked for the tenant that asked, once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from deployments.serving.request_meter import EVERY_S, For, RequestMeter
from infra.database.cluster import Cluster
from infra.database.connect import session, transact
from infra.database.deadline import within
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.tenant import Isolation
from tests.api.served import Api
from tests.serving.deployed import deploy, onboarded

ROW = {"store": 0, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"}


def booked(postgres: Cluster, tenant: str) -> list[dict[str, Any]]:
    query = text("SELECT * FROM usage WHERE tenant = :tenant ORDER BY at")
    return transact(
        postgres.operator_url,
        lambda connection: [dict(row) for row in connection.execute(query, {"tenant": tenant}).mappings()],
    )


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


@pytest.fixture
def meter(api_settings: Settings) -> RequestMeter:
    return RequestMeter(api_settings)


def test_requests_are_booked_with_their_rows(
    api: Api, api_settings: Settings, postgres: Cluster, keys: Any, tmp_path: Path
) -> None:
    deploy(onboarded(api_settings, postgres, "api-metered"), tmp_path)
    bearer = keys.create("api-metered", "test", Role.READER)[1]
    with api.client(bearer) as client:
        for rows in ([ROW], [ROW, ROW], [{}]):  # the last one is refused, and used CPU all the same
            client.post("/v1/demand/predict", json={"rows": rows})
    deadline = time.monotonic() + 30
    while not (found := booked(postgres, "api-metered")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert sum(row["requests"] for row in found) == 3
    assert sum(row["rows_out"] for row in found) == 3
    assert {(row["stage"], row["use_case"], row["release_version"], row["tier"]) for row in found} == {
        ("online", "demand", 1, "standard")
    }
    assert 0 < sum(row["cpu_s"] for row in found) < 5
    assert sum(row["bytes_in"] for row in found) > 3 * len('{"rows":[]}')


def test_what_cannot_be_booked_waits_and_is_booked_once(
    meter: RequestMeter, postgres: Cluster, api_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in ("meter-a", "meter-b"):
        onboarded(api_settings, postgres, tenant)
        with meter.request(For(tenant, "demand", 1)) as measured:
            burn(0.1)
            measured.rows = 5
    from infra.database import online_usage

    booking, calls = online_usage._book, []

    def dies_after_it_was_taken(url: str, each: Any) -> None:
        booking(url, each)
        calls.append(each.tenant)
        if len(calls) == 1:
            raise httpx.ReadError("the database took it, and could not say so")

    monkeypatch.setattr(online_usage, "_book", dies_after_it_was_taken)
    with pytest.raises(httpx.ReadError):
        meter.book()
    with meter.request(For("meter-b", "demand", 1)):
        burn(0.05)
    meter.book()
    meter.book()
    for tenant, requests, rows in (("meter-a", 1, 5), ("meter-b", 2, 5)):
        found = booked(postgres, tenant)
        assert (sum(row["requests"] for row in found), sum(row["rows_out"] for row in found)) == (requests, rows)
    assert 0.15 <= sum(row["cpu_s"] for row in booked(postgres, "meter-b")) < 0.3


def test_who_has_left_is_not_booked(meter: RequestMeter, postgres: Cluster) -> None:
    with meter.request(For("gone-away", "demand", 1)):
        pass
    meter.book()
    assert booked(postgres, "gone-away") == []


def test_a_silo_that_does_not_answer_keeps_nobody_elses_use_from_being_booked(
    meter: RequestMeter, postgres: Cluster, api_settings: Settings
) -> None:
    onboarded(api_settings, postgres, "meter-walled", isolation=Isolation.SILO)
    onboarded(api_settings, postgres, "meter-open")

    def asked() -> None:
        for tenant in ("meter-walled", "meter-open"):
            with meter.request(For(tenant, "demand", 1)):
                pass

    with session(postgres.silo_url("meter-walled")) as busy:
        busy.execute(text("BEGIN"))
        busy.execute(text("LOCK TABLE usage IN ACCESS EXCLUSIVE MODE"))
        for _ in range(2):
            asked()
            with within(EVERY_S):
                meter.book()
        assert sum(row["requests"] for row in booked(postgres, "meter-open")) == 2
        busy.execute(text("ROLLBACK"))
    meter.book()
    meter.book()
    query = text("SELECT sum(requests) FROM usage WHERE tenant = 'meter-walled'")
    assert transact(postgres.silo_url("meter-walled"), lambda connection: connection.scalar(query)) == 2
