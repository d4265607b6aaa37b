"""Looking for a tenant in every column of every table that can hold text, and in the names of things."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from psycopg import sql
from sqlalchemy import Connection, text

from infra.database.cluster import Cluster
from infra.database.connect import driver, transact
from infra.mentions import Mentions

TEXTS = text(
    """
    SELECT c.relname AS table, n.nspname AS schema, a.attname AS column, t.typname = 'bytea' AS bytes
    FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_type AS e ON e.oid = t.typelem AND t.typcategory = 'A'
    WHERE a.attnum > 0 AND NOT a.attisdropped
      AND (coalesce(e.typcategory, t.typcategory) IN ('S', 'E')
           OR coalesce(e.typname, t.typname) IN ('json', 'jsonb', 'xml', 'bytea'))
    ORDER BY n.nspname, c.relname, a.attnum
    """
)

NAMES = """
    SELECT kind, count(*) FROM (
        SELECT 'logins', rolname::text FROM pg_roles
        UNION ALL SELECT 'databases', datname::text FROM pg_database
        UNION ALL SELECT 'schemas', nspname::text FROM pg_namespace
        UNION ALL SELECT 'relations', relname::text FROM pg_class
        UNION ALL SELECT 'policies', policyname::text FROM pg_policies
        UNION ALL SELECT 'functions', proname::text FROM pg_proc
        UNION ALL SELECT 'comments', description FROM pg_description
    ) AS names (kind, name) WHERE {condition} GROUP BY kind ORDER BY kind
"""


OWNERS = {
    "registered_models": "split_part(name, '.', 1)",  # MLflow's
    "artifact": "split_part(key, '--', 1)",  # Prefect's
    "artifact_collection": "split_part(key, '--', 1)",
}
"""Whose a row is, in tables without a column `tenant`: what others declare and what becomes of it is in them."""


class Hit(NamedTuple):
    """Rows, files or lines that name the tenant: where, and how many."""

    where: str
    times: int


def search_database(url: str, name: str, mentions: Mentions) -> list[Hit]:
    """Where a database names the tenant, table by table. `url` is of a login that sees all rows, `name` what the
    database is called in the hits."""
    return transact(url, lambda connection: list(_hits(connection, name, mentions)))


def databases(cluster: Cluster) -> set[str]:
    """Names of the cluster's databases."""
    return set(transact(cluster.operator_url, lambda c: c.scalars(text("SELECT datname FROM pg_database")).all()))


def _hits(connection: Connection, database: str, mentions: Mentions) -> Iterator[Hit]:
    columns: dict[tuple[str, str], dict[str, bool]] = {}
    for text_column in connection.execute(TEXTS).mappings():
        of_table = columns.setdefault((text_column["schema"], text_column["table"]), {})
        of_table[text_column["column"]] = text_column["bytes"]
    # As parameters, because the server's log has the text of a statement that fails.
    values: dict[str, object] = {"tenant": mentions.leaver.tenant, "pattern": mentions.pattern}
    values |= {"pattern_of_id": mentions.pattern_of_id, "others": sorted(mentions.other_ids)}
    values |= {f"word{number}": word for number, word in enumerate(mentions.words)}
    for (schema, table), names in columns.items():
        where = sql.SQL(" OR ").join(_conditions(names, mentions))
        if owner := "tenant::text" if "tenant" in names else OWNERS.get(table):
            # What is another's may have a word in it that is this one's name.
            its_id = sql.SQL(" OR ").join(_conditions(names, mentions, sql.Placeholder("pattern_of_id")))
            where = sql.SQL("({}) AND (({}) = ANY(%(others)s) IS NOT TRUE OR {})").format(where, sql.SQL(owner), its_id)
        query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(sql.Identifier(schema, table), where)
        row = driver(connection).execute(query, values).fetchone()
        if row is not None and row[0]:
            yield Hit(f"{database}: table {table}", int(row[0]))
    query = sql.SQL(NAMES).format(condition=_names(sql.SQL("name"), mentions))
    for kind, times in driver(connection).execute(query, values):
        yield Hit(f"{database}: {kind}", int(times))


PATTERN = sql.Placeholder("pattern")


def _conditions(
    columns: Mapping[str, bool], mentions: Mentions, pattern: sql.Composable = PATTERN
) -> Iterator[sql.Composable]:
    """Of each column, given whether it holds bytes."""
    for column, of_bytes in columns.items():
        name = sql.Identifier(column)
        # as text, bytes are hexadecimal digits
        yield _names(sql.SQL("encode({}, 'escape')" if of_bytes else "{}::text").format(name), mentions, pattern)
        if column == "tenant":
            yield sql.SQL("{}::text = %(tenant)s").format(name)
    if {"key", "value"} <= columns.keys():  # MLflow's tags
        yield sql.SQL("(key::text = 'tenant' AND value::text = %(tenant)s)")


def _names(value: sql.Composable, mentions: Mentions, pattern: sql.Composable = PATTERN) -> sql.Composable:
    """Whether a text names the tenant; the cheap question comes first."""
    words = sql.SQL(" OR ").join(
        sql.SQL("strpos({}, {}) > 0").format(value, sql.Placeholder(f"word{number}"))
        for number in range(len(mentions.words))
    )
    return sql.SQL("(({}) AND {} ~ {})").format(words, value, pattern)
