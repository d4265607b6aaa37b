"""No login reaches rows of another tenant, whatever it tries; and the schema is what the classes say."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pyarrow as pa
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import make_url, text

from infra.database.audit import Actor, Audit
from infra.database.budgets import Budgets
from infra.database.cluster import Cluster
from infra.database.connect import engine
from infra.database.migrate import migrate
from infra.database.operator import Operator
from infra.database.price_tables import metadata
from infra.database.pulls import Pulled, PullProgress
from infra.database.records import PostgresRecords
from infra.database.storage_readings import Stored, record_stored
from tasks.domain.budget import Budget, Level, Standing
from tasks.domain.errors import InvalidDefinition
from tasks.domain.job import JobKind
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch
from tests.conftest import MakeRecords
from tests.infra.test_database import models, release, scores

SECRET = {
    "api_keys", "operator_keys", "audit", "audit_details", "tenant_secrets", "erasures", "overhead", "price_books",
    "invoices",
}  # fmt: skip
"""Tables that no tenant may even read."""

EVERYBODYS = {"price_rates"}
"""Tables that are the same for all."""

TABLES = sorted(set(metadata.tables) - SECRET - EVERYBODYS)
VIEWS = ["current_predictions", "model_health", "run_receipts", "tenant_costs"]


def fill(records: PostgresRecords, operator: Operator) -> None:
    """At least one row in every table and view."""
    records.add_upload("sales", Purpose.SCORING, "u1", "a.csv", 10, "aa")
    run = records.open_run(Stage.SCORING, "sales", "k", upload_id="u1", release_version=1)
    batch = Batch(run_id=run.run_id, number=1, bucket=0, partitions=("store=1,sku=1",), rows=1)
    records.plan(run, [batch], models())
    records.add_release(release(1), models(verdict="promote", reason="x"))
    records.finish_scoring_batch(batch, scores([1.0]))
    records.publish_scores(run, {"rows": 1})
    health = models(rows=1, metric="rmse", loss_sum=1.0, baseline_sum=1.0, own_rows=1)
    records.request("sales", JobKind.REFRESH, by="test")
    records.save_pull("sales", PullProgress(), Pulled("u1", 0), 1)
    Audit(operator.cluster).record("test", "done", by=Actor(who="test", origin="test"), tenant=records.tenant)
    records.save_health(records.open_run(Stage.MONITORING, "sales", "h"), health)
    records.read_process()
    record_stored(operator.cluster, [Stored(records.tenant, "sales", "lake", 1)])
    limit = Budget(tenant=records.tenant, hard=Decimal(1000), soft=Decimal(0), currency="EUR")
    Budgets(operator.cluster).set(limit)
    Budgets(operator.cluster).tell_once(
        Standing(budget=limit, spent=Decimal(0), limit=limit.hard, about="2026-11"), Level.SOFT
    )
    share = text("INSERT INTO budget_shares VALUES (:tenant, '2026-11', 1, 'EUR') ON CONFLICT DO NOTHING")
    with engine(operator.cluster.operator_url).begin() as connection:
        connection.execute(share, {"tenant": records.tenant})


@pytest.fixture(scope="module")
def tenants(make_records: MakeRecords, operator: Operator) -> tuple[PostgresRecords, PostgresRecords]:
    both = make_records("victim"), make_records("intruder")
    for records in both:
        fill(records, operator)
    return both


@pytest.fixture
def intruder(tenants: tuple[PostgresRecords, PostgresRecords]) -> psycopg.Connection:
    """A session of the second tenant's login, with all that its owner could type."""
    url = make_url(tenants[1].url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("name", [*TABLES, *VIEWS])
def test_a_tenant_sees_its_own_rows_only(intruder: psycopg.Connection, operator: Operator, name: str) -> None:
    seen = intruder.execute(f'SELECT DISTINCT tenant FROM "{name}"').fetchall()
    assert seen == [("intruder",)]
    with engine(operator.cluster.operator_url).connect() as everything:
        assert {"intruder", "victim"} <= set(everything.scalars(text(f"SELECT tenant FROM {name}")))


@pytest.mark.parametrize(
    "attempt",
    [
        'SET ROLE "tenant_victim"',
        "SET ROLE orchard",
        'SET SESSION AUTHORIZATION "tenant_victim"',
        'SELECT * FROM "predictions_victim"',
        'DELETE FROM "predictions_victim"',
        'TRUNCATE "predictions_intruder"',
        'COPY "predictions_victim" FROM STDIN',
        'DROP TABLE "predictions_intruder"',
        "ALTER TABLE uploads DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON uploads USING (true)",
        "GRANT orchard TO CURRENT_USER",
        "GRANT tenant_victim TO CURRENT_USER",
        "SET row_security = off; SELECT * FROM uploads",
        "UPDATE tenants SET tier = 'premium'",
        "UPDATE use_cases SET spec = '{}'",
        "UPDATE uploads SET tenant = 'victim'",
        "INSERT INTO releases SELECT 'victim', use_case, 99, training_run, dataset_version, upload_seq, 'x', source, "
        "digest, partitions, promoted, held, created_at FROM releases",
        "INSERT INTO predictions SELECT * FROM predictions",
        "INSERT INTO \"predictions_intruder\" SELECT 'victim', run_id, batch, partition, row_key, prediction, label, "
        "probabilities, baseline, answer, fallback, model_run FROM predictions",
        "CREATE TABLE mine (id integer)",
        "CREATE TEMPORARY TABLE mine (id integer)",
        "CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "SELECT rolpassword FROM pg_authid",
        "SELECT digest FROM api_keys",
        "UPDATE jobs SET tier = 'premium'",
        "UPDATE jobs SET attempts = 0",
        "INSERT INTO jobs (tenant, use_case, kind, requested_by) VALUES ('victim', 'sales', 'refresh', 'me')",
        "INSERT INTO jobs (tenant, use_case, kind, requested_by, tier) VALUES ('intruder', 'sales', 'pull', 'me', 'x')",
        "UPDATE schedules SET due_at = now()",
        "INSERT INTO runs (tenant, run_id, key, use_case, stage, status) OVERRIDING SYSTEM VALUE"
        " VALUES ('intruder', 9223372036854775807, 'last', 'sales', 'training', 'running')",
    ],
)
def test_an_attempt_is_refused(intruder: psycopg.Connection, attempt: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        intruder.execute(attempt)
    # insufficient privilege, or a row that breaks the partition's bounds
    assert refused.value.sqlstate in ("42501", "23514"), refused.value


@pytest.mark.parametrize(
    "preparation",
    [
        "SELECT set_config('orchard.tenant', 'victim', false)",
        "SELECT set_config('session_authorization', session_user, false)",
        "SET ROLE orchard_tenants",
        "SELECT set_config('search_path', 'pg_catalog,public', false)",
    ],
)
def test_no_setting_of_the_session_opens_other_rows(intruder: psycopg.Connection, preparation: str) -> None:
    intruder.execute(preparation)
    for name in ("uploads", "current_predictions", "predictions"):
        assert intruder.execute(f"SELECT DISTINCT tenant FROM {name}").fetchall() == [("intruder",)]
    assert intruder.execute("UPDATE runs SET error = 'x' WHERE tenant = 'victim'").rowcount == 0
    assert intruder.execute("DELETE FROM health WHERE tenant = 'victim'").rowcount == 0


def test_a_leaky_function_learns_nothing(intruder: psycopg.Connection) -> None:
    # A condition that fails on rows it may not see would tell that they exist.
    found = intruder.execute("SELECT count(*) FROM uploads WHERE 1 / (tenant <> 'victim')::int = 1").fetchone()
    assert found == (1,)


def test_every_table_is_under_forced_row_security(operator: Operator) -> None:
    query = text(
        "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') "
        "AND NOT c.relispartition AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
    )
    with engine(operator.cluster.operator_url).connect() as connection:
        assert connection.scalars(query).all() == ["alembic_version"]
        invokers = "SELECT count(*) FROM pg_class WHERE relkind = 'v' AND 'security_invoker=true' = ANY (reloptions)"
        assert connection.scalar(text(invokers)) == len(VIEWS)
        assert not connection.scalar(text("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = session_user"))


@pytest.mark.parametrize("database", ["postgres", "template1", "prefect"])
def test_a_tenant_may_not_connect_to_the_other_databases(
    tenants: tuple[PostgresRecords, PostgresRecords], database: str
) -> None:
    url = make_url(tenants[1].url).set(database=database).render_as_string(hide_password=False)
    with pytest.raises(InvalidDefinition, match="permission denied"):
        PostgresRecords(url, "intruder").runs()


def test_a_copy_with_another_tenants_url_needs_its_password(
    tenants: tuple[PostgresRecords, PostgresRecords],
) -> None:
    forged = make_url(tenants[1].url).set(username="tenant_victim").render_as_string(hide_password=False)
    with pytest.raises(InvalidDefinition, match="refuses"):
        PostgresRecords(forged, "victim").runs()


def test_records_under_a_foreign_name_find_and_store_nothing(
    tenants: tuple[PostgresRecords, PostgresRecords],
) -> None:
    crossed = PostgresRecords(tenants[1].url, "victim")
    assert crossed.uploads() == []
    assert crossed.predictions("sales")["tenant"].unique().tolist() == ["intruder"]
    with pytest.raises(Exception, match="row-level security"):
        crossed.open_run(Stage.TRAINING, "sales", "forged")
    batch = tenants[0].batches(tenants[0].runs(stage=Stage.SCORING)[0])[0]
    with pytest.raises(Exception, match="no batch"):
        crossed.finish_scoring_batch(batch, pa.table(scores([1.0])))


def test_the_tables_are_those_of_the_classes(operator: Operator) -> None:
    def ours(_: object, name: str | None, kind: str, *__: object) -> bool:
        return (
            kind != "table" or name in metadata.tables
        )  # a tenant's partition of the predictions is no table of its own

    with engine(operator.cluster.operator_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours, "compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_newer_schema_is_no_crash(postgres: Cluster) -> None:
    def stamp(version: str) -> str:
        known = text("SELECT version_num FROM alembic_version")
        with engine(postgres.operator_url).begin() as connection:
            before = str(connection.scalar(known))
            connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
        return before

    before = stamp("9999")
    try:
        with pytest.raises(InvalidDefinition, match="newer than this version of Orchard"):
            migrate(postgres.operator_url)
    finally:
        stamp(before)


def test_migrating_again_changes_nothing(postgres: Cluster, operator: Operator) -> None:
    with engine(postgres.operator_url).connect() as connection:
        revision = text("SELECT version_num, xmin::text FROM alembic_version")
        before = connection.execute(revision).all()
        connection.rollback()
        migrate(postgres.operator_url)
        assert connection.execute(revision).all() == before
