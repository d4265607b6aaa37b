"""A run that fails is told to whoever the operator named."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client

from deployments.alerts import ALERT, BUDGET_ALERT
from deployments.provision import provision
from flows.events import announce_budget
from tasks.domain.budget import Budget, Level, Standing
from tests.benchmarks.platform.running import until
from tests.selfrunning.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def pager() -> Iterator[tuple[str, list[Any]]]:
    """An address, and what was sent there."""
    heard: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/alerts", heard
    server.shutdown()


def test_a_failed_run_reaches_the_pager(site: Site, pager: tuple[str, list[Any]]) -> None:
    url, heard = pager
    Webhook(url=url, method="POST").save("pager", overwrite=True)  # type: ignore[unused-coroutine]
    settings = site.running.settings.model_copy(update={"alert_block": "webhook/pager"})
    assert provision(settings) == [f"automation {each!r}: new, tells webhook/pager" for each in (ALERT, BUDGET_ALERT)]
    assert provision(settings) == []
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("pipeline/pipeline-free")
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters={"tenant": 'no"body', "upload_id": "missing"}
        )
    until(lambda: heard, 90)
    [alert] = heard
    assert alert["tenant"] == 'no"body'
    assert alert["stage"] == "pipeline"
    assert "there is no tenant" in alert["cause"]
    assert str(run.id) in alert["run"]
    assert "orchard receipts" in alert["try"]
    heard.clear()
    limit = Budget(tenant="acme", hard=Decimal(12), soft=Decimal("9.6"), currency="EUR")
    announce_budget(Standing(budget=limit, spent=Decimal(10), limit=limit.hard, about="2026-11"), Level.SOFT)
    until(lambda: heard, 90)
    assert heard[0]["subject"] == "Orchard: soft limit of acme reached"
    assert heard[0]["cause"] == "10.00 of 9.60 EUR, 2026-11"
    gone = [f"automation {each!r}: removed, no block is set" for each in (ALERT, BUDGET_ALERT)]
    assert provision(site.running.settings) == gone
