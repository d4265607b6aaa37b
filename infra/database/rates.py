"""Prices in the database: the books, and list prices in every database that holds tenants' rows, which is what a tenant
may know of them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.dialects import postgresql

from infra.database.connect import transact
from infra.database.price_tables import PriceBookRow, PriceRateRow
from infra.database.tables import table
from infra.definitions import load_prices
from tasks.domain.prices import PriceBook, PriceHistory, Rate, rates

BOOKS, RATES = table(PriceBookRow), table(PriceRateRow)


def replace_rates(connection: Connection, valid: Iterable[Rate]) -> None:
    """Makes these the list prices."""
    rows = [
        {
            "tier": rate.tier.value,
            "valid_from": rate.valid_from,
            "valid_to": rate.valid_to,
            "price_book": rate.book.version,
            "currency": rate.book.currency,
            **rate.book.plans.of(rate.tier).prices.model_dump(),
        }
        for rate in valid
    ]
    connection.execute(delete(RATES))
    if rows:
        connection.execute(insert(RATES), rows)


def copy_rates(source_url: str, target_url: str) -> None:
    """Brings the list prices of the shared database into another."""
    found = transact(source_url, lambda connection: connection.execute(select(RATES)).mappings().all())

    def work(connection: Connection) -> None:
        connection.execute(delete(RATES))
        if found:
            connection.execute(insert(RATES), [dict(row) for row in found])

    transact(target_url, work)


def store_book(connection: Connection, book: PriceBook) -> None:
    """Adds a book, or takes the place of the one of that version."""
    values = {"begins": book.begins, "content": book.model_dump(mode="json")}
    statement = postgresql.insert(BOOKS).values(version=book.version, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["version"], set_=values))


def provide_default(url: str) -> None:
    """Sets the default book where there is none. `url` is the operator's."""

    def work(connection: Connection) -> None:
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.prices"))))
        if connection.scalar(select(func.count()).select_from(BOOKS)) == 0:
            book = load_prices()
            store_book(connection, book)
            replace_rates(connection, rates(PriceHistory(books=(book,))))

    transact(url, work)
