"""What a tenant's login may write never keeps the operator's work over all tenants from being done."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, IntegrityError

from deployments.costs.ledgers import price
from infra.database import migrations
from infra.database.connect import engine, transact
from infra.database.migrate import migrate
from infra.database.operator import Operator
from infra.database.past import past_units
from infra.database.records import PostgresRecords
from infra.database.storage_readings import database_bytes
from tasks.domain.tenant import Isolation
from tests.conftest import MakeRecords
from tests.infra.test_database_isolation import fill
from tests.infra.test_metering import begin
from tests.samples import sample_tenant

SET_BY_THE_DATABASE = {("usage", "at"), ("processes", "read_at")}

WRITABLE_TIMES = text(
    """
    SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
      AND a.atttypid = 'timestamptz'::regtype AND a.attnum > 0
      AND (has_column_privilege('orchard_tenants', c.oid, a.attnum, 'INSERT')
           OR has_column_privilege('orchard_tenants', c.oid, a.attnum, 'UPDATE'))
    ORDER BY 1, 2
    """
)

BOOKED = (
    "INSERT INTO usage (tenant, unit, use_case, stage, process, tier, cpu_s, wall_s, {name})"
    " VALUES ('prankster', 'x', 'sales', 'scoring', 'p', 'standard', {cpu_s}, 0, {value})"
)


@pytest.fixture(scope="module")
def prankster(make_records: MakeRecords, operator: Operator) -> PostgresRecords:
    records = make_records("prankster")
    fill(records, operator)
    return records


def refused(url: str, statement: str) -> None:
    with engine(url).connect() as connection, pytest.raises((IntegrityError, DataError), match=r"check|out of range"):
        connection.execute(text(statement))


@pytest.mark.parametrize("cpu_s", ["'NaN'", "'Infinity'", "1e308", "-1"])
def test_nobody_books_what_cannot_be_added_up(prankster: PostgresRecords, cpu_s: str) -> None:
    refused(prankster.url, BOOKED.format(cpu_s=cpu_s, name="rows_out", value=0))
    refused(prankster.url, BOOKED.format(cpu_s=0, name="peak_mb", value=cpu_s))
    refused(
        prankster.url, f"UPDATE processes SET cpu_s = {cpu_s}" if cpu_s != "-1" else "UPDATE processes SET peak_mb = -1"
    )


@pytest.mark.parametrize("name", ["rows_in", "rows_out", "bytes_in", "models_trained", "requests"])
def test_nobody_books_more_than_a_sum_can_hold(prankster: PostgresRecords, name: str) -> None:
    refused(prankster.url, BOOKED.format(cpu_s=0, name=name, value=2**62))


def test_months_are_priced_whatever_a_tenant_writes(prankster: PostgresRecords, operator: Operator) -> None:
    statement = text(BOOKED.format(cpu_s="1e8", name="rows_out", value="1e11").replace("'x'", ":unit"))
    with engine(prankster.url).begin() as connection:
        connection.execute(statement, [{"unit": f"most/{number}"} for number in range(100)])
    [used] = [each for each in price(operator.cluster).entries if (each.tenant, each.stage) == ("prankster", "scoring")]
    assert used.used.predictions >= 100 * 10**11
    operator_sql(operator, "DELETE FROM usage WHERE unit LIKE 'most/%'")


def operator_sql(operator: Operator, statement: str) -> None:
    transact(operator.cluster.operator_url, lambda connection: connection.execute(text(statement)))


def test_no_time_is_one_that_nobody_can_read(prankster: PostgresRecords, operator: Operator) -> None:
    """The operator's login is under the same rules, so they can be tried where a tenant may only insert."""
    operators = operator.cluster.operator_url
    found = transact(operators, lambda connection: [tuple(row) for row in connection.execute(WRITABLE_TIMES)])
    assert len(found) > 10
    never = ("infinity", "-infinity", "20000-01-01", "0300-01-01")
    for (table, column), value in product(sorted(set(found) - SET_BY_THE_DATABASE), never):
        refused(operators, f"UPDATE {table} SET {column} = '{value}' WHERE tenant = 'prankster'")


@pytest.mark.parametrize(
    "change",
    [
        "jobs SET flow_run_id = 'x'",
        "jobs SET tries_left = -2147483648",
        "runs SET receipt = '[]'",
        "health SET loss_sum = -1",
        "health SET rows = -1",
    ],
)
def test_nobody_writes_what_the_operator_stumbles_over(prankster: PostgresRecords, change: str) -> None:
    refused(prankster.url, f"UPDATE {change}")


def test_receipts_that_say_nothing_do_no_harm_to_estimates(make_records: MakeRecords) -> None:
    """One tenant's runs may stand in for another's."""
    records = make_records("babbler")
    run, _ = begin(records)
    records.finish_run(run, {"bundle_run": str(run.run_id), "partitions": "many", "tenant_wide_rows": 1e300})
    records.read_process(ended="done")
    [rest] = past_units(records.url, "babbler", "sales", 9).to_dict("records")
    assert (rest["kind"], rest["partitions"], rest["rows"]) == ("training/rest", 0.0, 0.0)


def test_what_is_kept_is_known_whatever_was_counted(prankster: PostgresRecords) -> None:
    with engine(prankster.url).begin() as connection:
        connection.execute(text("UPDATE scored_partitions SET rows = 0"))
    assert database_bytes(prankster.url, "prankster")["sales"] > 8192


def test_what_was_written_before_does_not_keep_a_database_from_being_upgraded(
    make_records: MakeRecords, operator: Operator
) -> None:
    records = make_records(sample_tenant("long-since").model_copy(update={"isolation": Isolation.SILO}))
    url = operator.cluster.silo_url("long-since")

    def downgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(str(migrations.__file__)).parent))
        config.attributes["connection"] = connection
        command.downgrade(config, "0007")

    transact(url, downgrade)
    run, _ = begin(records)
    records.finish_run(run, {})
    with engine(records.url).begin() as connection:
        for cpu_s, unit in (("'NaN'", "x"), ("1e308", "y")):
            connection.execute(
                text(
                    "INSERT INTO usage (tenant, unit, use_case, stage, process, tier, cpu_s, wall_s)"
                    f" VALUES ('long-since', '{unit}', 'sales', 'waste', 'p', 'standard', {cpu_s}, 0)"
                )
            )
        connection.execute(text("UPDATE runs SET finished_at = 'infinity'"))
    migrate(url)
    with engine(records.url).connect() as connection:
        assert connection.scalars(text("SELECT unit FROM usage")).all() == [f"run/{run.run_id}/rest/1"]
        assert connection.scalar(text("SELECT finished_at < now() FROM runs"))
