"""Looking for a word in all that a platform has, otherwise than the product does: every row as text, every file."""

from __future__ import annotations

from pathlib import Path

import psycopg
from sqlalchemy import make_url

from infra.database.cluster import SERVICES, connected_cluster
from infra.settings import Settings

STAYING = {"prefect.events", "prefect.event_resources", "orchard.invoices"}
"""Where Prefect keeps what happened, until its retention ends; what was paid."""


def places_of(settings: Settings, word: str) -> set[str]:
    """Tables, as `database.table`, catalogs, and paths below the home folder, that hold the word in any spelling."""
    admin = make_url(connected_cluster(settings).operator_url).set(
        drivername="postgresql", username="postgres", password=settings.service_password("postgres")
    )
    found: set[str] = set()
    with psycopg.connect(admin.set(database="postgres").render_as_string(hide_password=False)) as connection:
        names = [row[0] for row in connection.execute("SELECT datname FROM pg_database WHERE datallowconn")]
        found |= _rows(connection, "cluster", ["pg_catalog.pg_roles", "pg_catalog.pg_database"], word)
    for name in names:
        with psycopg.connect(admin.set(database=name).render_as_string(hide_password=False)) as connection:
            query = "SELECT schemaname || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
            tables = [row[0] for row in connection.execute(query)]
            found |= _rows(connection, name, [*tables, "pg_catalog.pg_class", "pg_catalog.pg_namespace"], word)
    assert set(SERVICES) <= set(names)
    return found | _files(settings.home, word.lower().encode())


def _rows(connection: psycopg.Connection, database: str, tables: list[str], word: str) -> set[str]:
    found = set()
    for table in tables:
        query = f"SELECT count(*) FROM {table} AS t WHERE t::text ILIKE '%{word}%'"  # type: ignore[arg-type]
        if connection.execute(query).fetchone() != (0,):  # type: ignore[arg-type]
            found.add(f"{database}.{table.partition('.')[2]}")
    return found


def _files(home: Path, word: bytes) -> set[str]:
    found = set()
    for path in home.rglob("*"):
        inside = path.relative_to(home)
        if inside.parts[0] == "postgres":  # its rows were searched
            continue
        if word in str(inside).lower().encode() or (path.is_file() and word in path.read_bytes().lower()):
            found.add(str(inside))
    return found
