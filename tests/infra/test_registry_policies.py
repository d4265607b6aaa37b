"""In MLflow's databases, a tenant's login reaches what bears its own name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from infra.database.operator import Operator
from tests.infra.test_registry import log, of_tenant, release, training_run
from tests.infra.test_registry import stores as stores
from tests.promotion import bundles

READ_IN_REGISTRY = (
    "experiments", "runs", "tags", "params", "metrics", "latest_metrics", "registered_models", "model_versions",
    "registered_model_tags", "model_version_tags", "registered_model_aliases",
)  # fmt: skip


@pytest.fixture(scope="module")
def two(operator: Operator, stores: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Connections of an intruder's login to both registries, in which a victim has a run, a model and a release."""
    folder = tmp_path_factory.mktemp("two")
    made = bundles.make(folder / "bundle", {0: "lightgbm", 1: "tenant_wide", 2: "naive"}, run=7)
    for tenant in ("robbed", "robber"):
        registry = of_tenant(tenant, operator, folder)
        log(registry, made, training_run(), {})
        release(registry, made, "key-1")
        registry.set_alias("demand", "champion", 1)
    urls = [make_url(uri).set(drivername="postgresql") for uri in operator.cluster.tenant_registry_urls("robber")]
    with ExitStack() as stack:
        yield [stack.enter_context(psycopg.connect(url.render_as_string(hide_password=False))) for url in urls]


def test_a_login_sees_its_own_entries_only(two: list[Any], stores: tuple[str, str]) -> None:
    training, production = two
    for table in READ_IN_REGISTRY:
        with psycopg.connect(stores[0].replace("+psycopg", "")) as owner:
            everyone = owner.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        own = training.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        assert own < everyone or everyone == 0, table
    for connection in two:
        names = connection.execute("SELECT DISTINCT name FROM model_versions").fetchall()
        assert names == [("robber.demand",)]
    assert production.execute("SELECT alias FROM registered_model_aliases").fetchall() == [("champion",)]
    assert training.execute("SELECT name FROM experiments ORDER BY name").fetchall() == [
        ("Default",),
        ("robber.demand",),
    ]


@pytest.mark.parametrize(
    "attempt",
    [
        "UPDATE model_versions SET source = 'file:///elsewhere' WHERE name = 'robbed.demand'",
        "UPDATE registered_model_aliases SET version = 9 WHERE name = 'robbed.demand'",
        "DELETE FROM registered_models WHERE name = 'robbed.demand'",
        "DELETE FROM experiments WHERE name = 'robbed.demand'",
        "UPDATE experiments SET name = 'mine' WHERE experiment_id = 0",
    ],
)
def test_a_login_changes_nothing_of_another(two: list[Any], attempt: str) -> None:
    for connection in two:
        assert connection.execute(attempt).rowcount == 0
        connection.rollback()


@pytest.mark.parametrize(
    "attempt",
    [
        "UPDATE model_versions SET name = 'robbed.demand'",
        "INSERT INTO registered_models (name) VALUES ('robbed.other')",
        "INSERT INTO experiments (name, lifecycle_stage) VALUES ('robbed.other', 'active')",
        "SELECT * FROM webhooks; SELECT * FROM secrets",
        "ALTER TABLE model_versions DISABLE ROW LEVEL SECURITY",
        "SET ROLE mlflow_training",
        "CREATE TABLE mine (id integer)",
    ],
)
def test_a_login_is_refused(two: list[Any], attempt: str) -> None:
    for connection in two:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(attempt)
        connection.rollback()
