"""Entries that nobody waits for: added when the database takes them, and never lost without a word."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from deployments.api import reports
from deployments.api.reports import MAX_WAITING, Reports
from infra.database.audit import Actor, Audit
from infra.database.cluster import Cluster
from infra.settings import Settings, load_settings
from tests.api.served import wait_for

BY = Actor(who="unknown", origin="api 192.0.2.1")


@pytest.fixture
def nowhere(tmp_path: Path) -> Settings:
    """Settings of a PostgreSQL that does not run."""
    return load_settings(home=tmp_path / "home")


def lost(caplog: pytest.LogCaptureFixture) -> int:
    return sum("not in the audit" in record.message for record in caplog.records)


def test_they_are_added(settings: Settings, postgres: Cluster) -> None:
    told = Reports(settings)
    told.start()
    before = len(Audit(postgres).entries(action="test.report"))
    for number in range(5):
        told.add("test.report", "refused", BY, number=number)
    told.close()
    found = Audit(postgres).entries(action="test.report")
    assert [each["number"] for each in found["details"][: len(found) - before]] == [4, 3, 2, 1, 0]


def test_they_wait_for_the_database(
    settings: Settings, nowhere: Settings, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "AGAIN_S", 0.05)
    told = Reports(nowhere)
    told.start()
    told.add("test.late", "refused", BY)
    time.sleep(0.2)
    assert Audit(postgres).entries(action="test.late").empty
    told._settings = settings  # the database comes back, at another place: starting one would take seconds
    wait_for(lambda: len(Audit(postgres).entries(action="test.late")) == 1)
    told.close()


def test_what_is_lost_is_in_the_log(nowhere: Settings, caplog: pytest.LogCaptureFixture) -> None:
    told = Reports(nowhere)
    told.start()
    for number in range(3):
        told.add("test.lost", "refused", BY, number=number)
    told.close()
    assert lost(caplog) == 3


def test_what_is_too_much_is_in_the_log(nowhere: Settings, caplog: pytest.LogCaptureFixture) -> None:
    told = Reports(nowhere)
    for number in range(MAX_WAITING + 2):
        told.add("test.flood", "refused", BY, number=number)
    assert lost(caplog) == 2
    told.start()
    closing = threading.Thread(target=told.close)
    closing.start()
    closing.join(timeout=10)
    assert not closing.is_alive()
    assert lost(caplog) == MAX_WAITING + 2
