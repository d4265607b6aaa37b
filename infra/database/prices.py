"""Price books, as the database keeps them: it is the one place that prices are asked of."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, delete, func, select

from infra.database.audit import SOMEBODY, Actor, Audit
from infra.database.budget_tables import BudgetRow
from infra.database.cluster import SILOS, Cluster
from infra.database.connect import transact
from infra.database.price_tables import InvoiceRow, PriceBookRow
from infra.database.rates import copy_rates, replace_rates, store_book
from infra.database.tables import table
from infra.database.usage_tables import MembershipRow
from infra.definitions import DEFAULT_PRICES, load_prices
from tasks.domain.errors import InvalidDefinition
from tasks.domain.months import Month
from tasks.domain.prices import PriceBook, PriceHistory, rates

BOOKS, INVOICES = table(PriceBookRow), table(InvoiceRow)
BUDGETS, MEMBERSHIPS = table(BudgetRow), table(MembershipRow)


@dataclass(frozen=True)
class PriceBooks:
    """All price books. Only the operator may hold it."""

    cluster: Cluster
    by: Actor = SOMEBODY

    def all(self) -> PriceHistory:
        """In the order in which they begin; before any was set, the one of `deployments/prices.yaml`."""
        return transact(self.cluster.operator_url, _history)

    def set(self, book: PriceBook) -> bool:
        """Adds a book, or changes one that is not in use yet; false when it is there already, just like that.

        The first book of one's own takes the place of the default. Raises `InvalidDefinition` for a book that would
        change what was charged already, leave the first tenant's time without prices, or end what budgets count in.
        """

        once = secrets.token_hex(16)

        def work(connection: Connection) -> bool:
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.prices"))))
            before = _history(connection)
            if book in before.books:
                return False
            billed = connection.scalar(select(func.max(INVOICES.c.month)))
            _check(before, book, billed)
            default = billed is None and [each.version for each in before.books] == [load_prices().version]
            others = () if default else tuple(each for each in before.books if each.version != book.version)
            after = PriceHistory(books=tuple(sorted([*others, book], key=lambda each: each.valid_from)))
            _check_covers(connection, after, book)
            if default:
                connection.execute(delete(BOOKS))
            store_book(connection, book)
            replace_rates(connection, rates(after))
            Audit(self.cluster).add(connection, "prices.set", "done", by=self.by, once=once, version=book.version)
            return True

        changed = transact(self.cluster.operator_url, work)
        # Also of a book that is there already: whoever was cut off before all silos had it calls again.
        for tenant in transact(self.cluster.operator_url, lambda connection: connection.scalars(SILOS).all()):
            copy_rates(self.cluster.operator_url, self.cluster.silo_url(tenant))
        return changed


def _history(connection: Connection) -> PriceHistory:
    contents = connection.scalars(select(BOOKS.c.content).order_by(BOOKS.c.begins)).all()
    if not contents:
        raise InvalidDefinition(f"there is no price book; {DEFAULT_PRICES} is set when the platform is started")
    return PriceHistory(books=tuple(PriceBook.model_validate(each) for each in contents))


def _check(before: PriceHistory, book: PriceBook, billed: str | None) -> None:
    older = next((each for each in before.books if each.version == book.version), None)
    for each in filter(None, (older, book)):
        month = str(Month.of(each.begins, book.timezone))
        if billed is not None and month <= billed:
            raise InvalidDefinition(
                f"price book {book.version!r} would change prices of months that invoices were issued for",
                expected=f"valid_from after {billed}",
                found=str(each.valid_from),
                hint="let a new version begin later",
            )


def _check_covers(connection: Connection, history: PriceHistory, book: PriceBook) -> None:
    """Without a price, a month can neither be shown nor billed; without their currency's, budgets count nothing."""
    first = connection.scalar(select(func.min(MEMBERSHIPS.c.since)))
    if first is not None and first < history.turns()[0]:
        raise InvalidDefinition(
            f"before price book {book.version!r} begins, there would be no prices",
            expected=f"valid_from by {first.astimezone(ZoneInfo(book.timezone)):%Y-%m-%d}, when the first tenant came",
            found=str(history.books[0].valid_from),
            hint="let a book with prices of 0 come before it, if nothing is to be charged for that time",
        )
    now = datetime.now(UTC)
    for start, end in pairwise([*history.turns(), datetime.max.replace(tzinfo=UTC)]):
        if first is not None and start <= now and first < end and history.find(start) is None:
            raise InvalidDefinition(
                f"with price book {book.version!r}, there would be no prices from"
                f" {start.astimezone(ZoneInfo(book.timezone)):%Y-%m-%d} on",
                expected="a book that is valid on every day since the first tenant came",
                hint="leave out valid_to, or set the book that follows before",
            )
    others = select(BUDGETS.c.currency).where(BUDGETS.c.currency != book.currency)
    if (theirs := connection.scalar(others.limit(1))) is not None:
        raise InvalidDefinition(
            "budgets are in another currency than the price book, so that they would stop nothing any more",
            expected=str(theirs),
            found=book.currency,
            hint="remove them first (orchard budgets list), and set them anew afterwards",
        )
