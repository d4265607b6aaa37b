"""A download of a million rows: the process that makes it does not grow, and a slow client holds no connection."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.keys import Keys
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.tenant import Tier
from tests.api.filled import answers, publish
from tests.api.served import wait_for
from tests.serving.deployed import onboarded

BATCHES, EACH = 10, 100_000
MOST_MB = 200
"""The table alone would take more; as Python's objects, many times that."""


@pytest.fixture(scope="module")
def client(
    settings: Settings, postgres: Cluster, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of an API in a process of its own, for a tenant with a million predictions."""
    space = onboarded(settings, postgres, "api-downloads", Tier.PREMIUM)
    rows = [[(f"store={batch}", f"{batch},{row:06}") for row in range(EACH)] for batch in range(BATCHES)]
    publish(space, "one", [answers(each) for each in rows])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHARD_", "PREFECT_"))}
    environment |= {"ORCHARD_HOME": str(settings.home), "ORCHARD_API_PORT": str(port)}
    log = Path(tmp_path_factory.mktemp("api")) / "log"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "deployments.api"], env=environment, stdout=file, stderr=file)
    headers = {"Authorization": f"Bearer {keys.create('api-downloads', 'test', Role.READER)[1]}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=120) as client:

            def answered() -> bool:
                try:
                    return client.get("/v1/demand/predictions", params={"limit": 1}).status_code == 200
                except httpx.TransportError:
                    return False

            wait_for(answered, 60)
            client.headers["X-Process"] = str(process.pid)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_million_rows_take_no_memory(client: httpx.Client, form: str) -> None:
    process = psutil.Process(int(client.headers["X-Process"]))
    before, most, content = process.memory_info().rss, 0, io.BytesIO()
    with client.stream("GET", "/v1/demand/predictions", params={"format": form}) as answer:
        for block in answer.iter_raw():
            content.write(block)
            most = max(most, process.memory_info().rss)
    content.seek(0)
    table = pq.read_table(content) if form == "parquet" else pa.csv.read_csv(content)
    assert table.num_rows == BATCHES * EACH
    assert table["row_key"].to_pylist()[:: EACH - 1][:3] == ["0,000000", "0,099999", "1,099998"]
    assert (most - before) / 1e6 < MOST_MB


@pytest.mark.slow
def test_who_takes_it_slowly_holds_no_connection(client: httpx.Client, postgres: Cluster) -> None:
    busy = text(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_api-downloads'"
        " AND (state LIKE 'idle in%' OR state = 'active')"
    )
    with client.stream("GET", "/v1/demand/predictions", params={"format": "csv"}) as answer:
        blocks = answer.iter_raw()
        next(blocks)
        wait_for(lambda: transact(postgres.operator_url, lambda connection: connection.scalar(busy)) == 0)
        assert client.get("/v1/demand/predictions", params={"limit": 1}).status_code == 200
        assert sum(map(len, blocks)) > 10_000_000
