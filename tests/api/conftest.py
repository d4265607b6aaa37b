"""The API as it is served: uvicorn on a port of its own, a real PostgreSQL behind it, no Prefect at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.tenant import Tier
from tests.api.served import Api, serve
from tests.samples import sample_tenant

TIERS = """
free: {runs: 1, workers: 1, max_upload_bytes: 100, requests_per_s: 5, request_rows: 10, memory_share: 0.2}
standard: {runs: 2, workers: 1, max_upload_bytes: 10000000}
premium: {runs: 4, workers: 1, max_upload_bytes: 10000000, requests_per_s: 100000}
"""

MakeClient = Callable[..., httpx.Client]


@pytest.fixture(scope="package")
def api_settings(settings: Settings, postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The session's settings with small limits, and an inbox in a bucket."""
    tiers = Path(tmp_path_factory.mktemp("tiers")) / "tiers.yaml"
    tiers.write_text(TIERS)
    return settings.model_copy(update={"tiers_file": tiers, "inbox_url": "s3://files/in/box"})


@pytest.fixture(scope="package")
def api(api_settings: Settings, postgres: Cluster) -> Iterator[Api]:
    """A running API, which notes what it announces, and whose every dispatch fails."""
    with serve(api_settings) as api:
        yield api
    forget = text("DELETE FROM jobs WHERE starts_with(tenant, 'api-')")  # other tests look at what waits
    transact(postgres.operator_url, lambda connection: connection.execute(forget))


@pytest.fixture(scope="package")
def keys(postgres: Cluster) -> Keys:
    return Keys(postgres)


@pytest.fixture
def client(api: Api, operator: Operator, keys: Keys) -> Iterator[MakeClient]:
    """Onboards a tenant and opens a client with a key of its own."""
    opened = []

    def make(tenant: str, tier: Tier = Tier.STANDARD, role: Role = Role.UPLOADER) -> httpx.Client:
        assert tenant.startswith("api-"), "see the clean-up above"
        operator.onboard(sample_tenant(tenant, tier=tier))
        _, key = keys.create(tenant, "test", role)
        opened.append(api.client(key))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
