"""Fixtures that all tests share: one embedded PostgreSQL for the session, tenants made as they are needed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import postgres as embedded
from infra.database.cluster import Cluster, started_cluster
from infra.database.operator import Operator
from infra.database.records import PostgresRecords
from infra.settings import Settings, load_settings
from tasks.domain.tenant import Tenant
from tests.samples import sample_tenant

os.environ["COLUMNS"] = "200"  # of the terminal that commands believe to write to; read when they are imported

MakeRecords = Callable[[str | Tenant], PostgresRecords]


@pytest.fixture(scope="session")
def settings() -> Iterator[Settings]:
    """Settings of a home of this session's own. It is not pytest's folder, which is closed to the server's user."""
    with tempfile.TemporaryDirectory(prefix="orchard-test-") as folder:
        yield load_settings(home=Path(folder) / "home")


@pytest.fixture
def own() -> Iterator[Settings]:
    """Settings of a home whose PostgreSQL runs once it is asked for, and which a test may stop."""
    with tempfile.TemporaryDirectory(prefix="orchard-test-") as folder:
        settings = load_settings(home=Path(folder) / "home")
        try:
            yield settings
        finally:
            embedded.stop(settings.home)


@pytest.fixture(scope="session")
def postgres(settings: Settings) -> Iterator[Cluster]:
    """A running cluster with empty databases: Orchard's (migrated), Prefect's, and MLflow's two."""
    try:
        yield started_cluster(settings)
    finally:
        embedded.stop(settings.home)


@pytest.fixture(scope="session")
def operator(postgres: Cluster) -> Operator:
    """The operator of the session's cluster."""
    return Operator(postgres)


@pytest.fixture(scope="session")
def make_records(operator: Operator) -> MakeRecords:
    """Onboards a tenant (an id, with the sample use case; or a whole tenant) and opens its records."""

    def make(tenant: str | Tenant) -> PostgresRecords:
        definition = sample_tenant(tenant) if isinstance(tenant, str) else tenant
        operator.onboard(definition)
        return operator.records(definition.id)

    return make


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several test processes, one takes a whole file, for its fixtures; of `tests/cli`, half of the files, for its
    platform."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            if file.startswith("tests/cli/"):
                return "tests/cli, to f" if file < "tests/cli/test_g" else "tests/cli, from g"
            return file

    return Scheduling(config, log)
