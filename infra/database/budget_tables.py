"""The tables of budgets: limits, what was told of them, and each tenant's share of the platform's."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import Numeric, text
from sqlmodel import Field, SQLModel

from infra.database.tables import belongs_to, key_column, text_column, time_column

ALL = ""
"""In place of a tenant: the platform; in place of a use case: all of the tenant's."""


def _money() -> Any:
    return Field(sa_type=cast(Any, Numeric(18, 6)))


class BudgetRow(SQLModel, table=True):
    """One row per budget. It refers to no tenant, because the platform's has none."""

    __tablename__ = "budgets"

    tenant: str = key_column()
    use_case: str = key_column()
    period: str = key_column()
    hard: Decimal = _money()
    soft: Decimal = _money()
    currency: str = text_column()
    priority: int = Field(sa_column_kwargs={"server_default": text("0")})
    set_at: datetime = time_column(default=True)


class BudgetAlertRow(SQLModel, table=True):
    """One row per limit that was reached and told, once per month or run (`about`)."""

    __tablename__ = "budget_alerts"
    __table_args__ = (belongs_to("budgets", "tenant", "use_case", "period"),)

    tenant: str = key_column()
    use_case: str = key_column()
    period: str = key_column()
    about: str = key_column()
    level: str = key_column()
    at: datetime = time_column(default=True)


class BudgetShareRow(SQLModel, table=True):
    """One row per tenant and month: where it has to stop, by its share of the platform's budget. How much that is in
    all is not told: tenants read their row."""

    __tablename__ = "budget_shares"
    __table_args__ = (belongs_to("tenants", "tenant"),)

    tenant: str = key_column()
    month: str = key_column()
    stop_at: Decimal = _money()
    currency: str = text_column()
