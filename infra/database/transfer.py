"""Moves a tenant's rows between the shared database and one of its own: copied, compared, and only then removed."""

from __future__ import annotations

from typing import NamedTuple

from psycopg import sql
from sqlalchemy import Connection, Table, text

from infra.database.connect import driver, transact
from infra.database.price_tables import metadata
from infra.database.tables import PredictionRow, predictions_of, table
from infra.database.usage_tables import UsageRow

SHARED = frozenset(
    {
        "tenants", "use_cases", "jobs", "schedules", "api_keys", "operator_keys", "audit", "audit_details",
        "tenant_secrets", "erasures", "stored", "memberships", "overhead",
        "price_books", "price_rates", "invoices", "budgets", "budget_alerts", "budget_shares",
    }
)  # fmt: skip
"""Tables whose rows are in the shared database, wherever a tenant's data is."""


class Content(NamedTuple):
    """What a table holds of a tenant: how many rows, and a sum over their hashes, whatever their order."""

    rows: int
    digest: str


def owned_tables() -> list[Table]:
    """The tables that move with a tenant's data, each after those that it refers to."""
    return [each for each in metadata.sorted_tables if each.name not in SHARED]


def content(url: str, tenant: str) -> dict[str, Content]:
    """What each of the tables holds of a tenant."""

    def read(connection: Connection) -> dict[str, Content]:
        return {each.name: _content(connection, each.name, tenant) for each in owned_tables()}

    return transact(url, read)


def copy_rows(source_url: str, target_url: str, tenant: str) -> None:
    """Puts a tenant's rows into another database, in place of what that one has of it, in one transaction.

    Both URLs are the operator's, and the tenant is onboarded in both. Nobody may write the rows meanwhile.
    """
    transact(target_url, lambda target: transact(source_url, lambda source: _copy(source, target, tenant)))


def copy_late_usage(source_url: str, target_url: str, tenant: str) -> None:
    """Adds what was booked in the one database after its rows were copied: online requests are answered while their
    tenant moves, and booked where its data is by then."""

    def work(source: Connection, target: Connection) -> None:
        driver(target).execute("CREATE TEMPORARY TABLE late (LIKE usage) ON COMMIT DROP")
        _pour(source, target, table(UsageRow), tenant, into="late")
        driver(target).execute("INSERT INTO usage TABLE late ON CONFLICT DO NOTHING")

    transact(target_url, lambda target: transact(source_url, lambda source: work(source, target)))


def repoint_releases(url: str, tenant: str, old: str, new: str) -> None:
    """Changes where a tenant's releases say that their files are, from below `old` to below `new`."""
    statement = text(
        "UPDATE releases SET source = :new || substr(source, length(:old) + 1)"
        " WHERE tenant = :tenant AND starts_with(source, :old || '/')"
    )
    transact(url, lambda connection: connection.execute(statement, {"tenant": tenant, "old": old, "new": new}))


def remove_rows(url: str, tenant: str) -> None:
    """Removes a tenant's rows of these tables; its definition stays."""
    transact(url, lambda connection: _remove(connection, tenant))


def _content(connection: Connection, name: str, tenant: str) -> Content:
    query = sql.SQL(
        "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM {table} AS t"
        " WHERE tenant = {tenant}"
    ).format(table=sql.Identifier(name), tenant=sql.Literal(tenant))
    return Content(*driver(connection).execute(query).fetchone() or (0, "0"))


def _remove(connection: Connection, tenant: str) -> None:
    for each in reversed(owned_tables()):
        statement = sql.SQL("DELETE FROM {} WHERE tenant = {}").format(sql.Identifier(each.name), sql.Literal(tenant))
        driver(connection).execute(statement)


def _copy(source: Connection, target: Connection, tenant: str) -> None:
    _remove(target, tenant)
    for each in owned_tables():
        if each is table(PredictionRow):
            _pour(source, target, each, tenant, into=predictions_of(tenant))
            continue
        # COPY into a table with row-level security is refused.
        name = sql.Identifier(each.name)
        driver(target).execute(sql.SQL("CREATE TEMPORARY TABLE moved (LIKE {}) ON COMMIT DROP").format(name))
        _pour(source, target, each, tenant, into="moved")
        driver(target).execute(sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE TABLE moved").format(name))
        driver(target).execute("DROP TABLE moved")
        _number_on(target, each)
    numbering = "SELECT use_case, last_seq FROM use_cases WHERE tenant = :tenant"
    for use_case, last_seq in source.execute(text(numbering), {"tenant": tenant}).all():
        values = {"tenant": tenant, "use_case": use_case, "last_seq": last_seq}
        on = "UPDATE use_cases SET last_seq = :last_seq WHERE tenant = :tenant AND use_case = :use_case"
        target.execute(text(on), values)


def _pour(source: Connection, target: Connection, owned: Table, tenant: str, into: str) -> None:
    """Streams a tenant's rows of one table into another of the same columns."""
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in owned.columns)
    rows = sql.SQL("COPY (SELECT {columns} FROM {table} WHERE tenant = {tenant}) TO STDOUT (FORMAT binary)").format(
        columns=columns, table=sql.Identifier(owned.name), tenant=sql.Literal(tenant)
    )
    wanted = sql.SQL("COPY {into} ({columns}) FROM STDIN (FORMAT binary)").format(
        into=sql.Identifier(into), columns=columns
    )
    with driver(source).cursor().copy(rows) as reading, driver(target).cursor().copy(wanted) as writing:
        for chunk in reading:
            writing.write(chunk)


def _number_on(target: Connection, owned: Table) -> None:
    """Lets the numbering of a table go on above what was copied into it."""
    for column in owned.columns:
        if column.identity is not None:
            statement = sql.SQL(
                "SELECT setval(pg_get_serial_sequence({name}, {column}),"
                " greatest(nextval(pg_get_serial_sequence({name}, {column})), (SELECT max({identifier}) FROM {table})))"
            ).format(
                name=sql.Literal(owned.name),
                column=sql.Literal(column.name),
                identifier=sql.Identifier(column.name),
                table=sql.Identifier(owned.name),
            )
            driver(target).execute(statement)
