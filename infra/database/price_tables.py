"""The tables of prices and invoices."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import Numeric, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from infra.database import usage_tables as usage_tables
from infra.database.tables import key_column, text_column, time_column

metadata = SQLModel.metadata
"""All tables: these, and those of the modules beside this one."""


def _money() -> Any:
    return Field(sa_type=cast(Any, Numeric))


class PriceBookRow(SQLModel, table=True):
    """One row per price book, as it was declared. Nobody but the operator reads what things cost."""

    __tablename__ = "price_books"
    __table_args__ = (UniqueConstraint("begins"),)

    version: str = key_column()
    begins: datetime = time_column()
    content: dict[str, Any] = Field(sa_type=JSONB)
    set_at: datetime = time_column(default=True)


class PriceRateRow(SQLModel, table=True):
    """One row per tier and stretch of time: list prices, which tenants may read. `valid_to` null: until further notice.
    Every database that holds tenants' rows has them."""

    __tablename__ = "price_rates"

    tier: str = key_column()
    valid_from: datetime = Field(primary_key=True, sa_type=time_column().sa_type)
    valid_to: datetime | None = time_column()
    price_book: str = text_column()
    currency: str = text_column()
    cpu_hour: Decimal = _money()
    gb_month: Decimal = _money()
    million_predictions: Decimal = _money()


class InvoiceRow(SQLModel, table=True):
    """One row per invoice that was issued; it is never changed. Its `customer` may be a tenant that has left, whose
    last invoices stay: accounts must be kept. Whoever comes by the same name later is since then another customer."""

    __tablename__ = "invoices"
    __table_args__ = (UniqueConstraint("customer", "customer_since", "month"),)

    number: str = key_column()
    customer: str = text_column()
    customer_since: datetime = time_column()
    month: str = text_column()
    issued_at: datetime = time_column(default=True)
    content: dict[str, Any] = Field(sa_type=JSONB)
