"""A tenant's rows as they are handed over: read with its own login, as Arrow batches, without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pydantic_core import to_json
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Double,
    Integer,
    Numeric,
    Table,
    Text,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from infra.database.connect import transact
from infra.database.price_tables import metadata
from infra.database.tables import UseCaseRow, table
from tasks.domain.use_case import UseCase

SECRET_COLUMNS = frozenset({"digest", "token", "personal_key"})
"""What would open something, or could be guessed at: it is the platform's."""

WITHHELD = frozenset({"tenant_secrets", "erasures", "audit_details"})
"""Tables of which nothing is handed over: secrets, what the platform remembers of erasures, and one half of the audit,
whose entries are handed over whole."""

OPERATORS = frozenset({"api_keys"})
"""Tables that a tenant's login may not read, and whose rows are handed over all the same, but for secret columns."""

BATCH_ROWS = 10_000

TYPES: dict[type, pa.DataType] = {
    Text: pa.string(),
    BigInteger: pa.int64(),
    Integer: pa.int32(),
    Boolean: pa.bool_(),
    Double: pa.float64(),
    Numeric: pa.decimal128(18, 6),
    DateTime: pa.timestamp("us", "UTC"),
    JSON: pa.string(),
    JSONB: pa.string(),
}


class Rows:
    """The rows of one table that are a tenant's, as one transaction sees them."""

    def __init__(self, connection: Connection, rows: Table, tenant: str) -> None:
        self._connection, self._tenant, self.name = connection, tenant, rows.name
        self._columns = [column for column in rows.c if column.name not in SECRET_COLUMNS]
        self._condition = rows.c.tenant == tenant
        self.schema = pa.schema([pa.field(column.name, _arrow_type(column.type)) for column in self._columns])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, in no particular order."""
        query = select(*self._columns).where(self._condition).execution_options(yield_per=BATCH_ROWS)
        with self._connection.execute(query) as result:
            for block in result.partitions():
                columns = zip(*block, strict=True)
                arrays = [
                    pa.array([_plain(value, column) for value in values], field.type)
                    for values, column, field in zip(columns, self._columns, self.schema, strict=True)
                ]
                yield pa.record_batch(arrays, schema=self.schema)


@contextmanager
def readable_rows(url: str, tenant: str) -> Iterator[list[Rows]]:
    """The tables that a login may read, with the tenant's rows as they were at one moment. With the operator's login,
    those that a tenant's may not read and that are handed over all the same."""
    from infra.database.connect import engine

    with engine(url).begin() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        own = connection.scalar(text("SELECT starts_with(session_user, 'tenant_')"))
        wanted = [rows for rows in metadata.sorted_tables if "tenant" in rows.c and rows.name not in WITHHELD]
        may = text("SELECT has_table_privilege(:name, 'SELECT')")
        yield [
            Rows(connection, rows, tenant)
            for rows in wanted
            if (connection.scalar(may, {"name": rows.name}) if own else rows.name in OPERATORS)
        ]


def all_use_cases(url: str, tenant: str) -> list[UseCase]:
    """The tenant's use cases, those that are switched off included."""
    rows = table(UseCaseRow)
    query = select(rows.c.spec).where(rows.c.tenant == tenant).order_by(rows.c.position, rows.c.use_case)
    specs = transact(url, lambda connection: connection.scalars(query).all())
    return [UseCase.model_validate(spec) for spec in specs]


def _arrow_type(kind: Any) -> pa.DataType:
    if isinstance(kind, ARRAY):
        return pa.list_(TYPES[type(kind.item_type)])
    return TYPES[type(kind)]


def _plain(value: Any, column: Column[Any]) -> Any:
    """JSON becomes text, all else stays as it is."""
    if value is None or not isinstance(column.type, JSON):
        return value
    return to_json(value).decode()
