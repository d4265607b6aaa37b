"""Invoices that were issued. They are never changed, and stay when a tenant leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select

from infra.database.audit import SOMEBODY, Actor, Audit
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.price_tables import InvoiceRow
from infra.database.tables import table

INVOICES = table(InvoiceRow)


class Issued(NamedTuple):
    """An invoice as it was issued: `content` is the whole of it."""

    number: str
    customer: str
    customer_since: datetime
    month: str
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Invoices:
    """All of them. Only the operator may hold it. `by` is who issues them."""

    cluster: Cluster
    by: Actor = SOMEBODY

    def issue(self, invoice: Issued) -> Issued:
        """Stores an invoice, and returns it with its number and the time; one that was issued for the same customer and
        month is returned as it is. `invoice.number` is what the number begins with."""

        def work(connection: Connection) -> Issued:
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.invoices"))))
            same = (INVOICES.c.customer == invoice.customer) & (INVOICES.c.month == invoice.month)
            known = [_issued(row) for row in connection.execute(select(INVOICES).where(same)).mappings()]
            for each in known:
                if each.customer_since == invoice.customer_since:
                    return each
            # A dot, because no tenant's name has one: `acme-2` may be another customer.
            number = invoice.number if not known else f"{invoice.number}.{len(known) + 1}"
            now = connection.execute(select(func.now())).scalar_one()
            content = {**invoice.content, "number": number, "issued_at": now.isoformat()}
            issued = invoice._replace(number=number, content=content)
            connection.execute(insert(INVOICES).values(issued._asdict()))
            audit, facts = Audit(self.cluster), {"number": number, "month": issued.month}
            once = f"invoice/{number}"
            audit.add(connection, "invoice.issue", "done", by=self.by, tenant=issued.customer, once=once, **facts)
            return issued

        return transact(self.cluster.operator_url, work)

    def all(self, customer: str | None = None, month: str | None = None) -> list[Issued]:
        """Newest month first."""
        query = select(INVOICES).order_by(INVOICES.c.month.desc(), INVOICES.c.customer, INVOICES.c.issued_at)
        if customer is not None:
            query = query.where(INVOICES.c.customer == customer)
        if month is not None:
            query = query.where(INVOICES.c.month == month)
        rows = transact(self.cluster.operator_url, lambda connection: connection.execute(query).mappings().all())
        return [_issued(row) for row in rows]


def _issued(row: Mapping[Any, Any]) -> Issued:
    return Issued(*(row[name] for name in Issued._fields))
