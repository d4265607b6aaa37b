"""What the records of one tenant share: who they belong to, and how they reach the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Table

from infra.database.connect import transact
from tasks.domain.run import Batch, Run

Result = TypeVar("Result")


@dataclass(frozen=True)
class TenantRows:
    """The rows of one tenant, through that tenant's own login. Pickles, and connects on first use.

    `shared_url` is that of the database where jobs wait; without it, the tenant's rows are in that one too.
    """

    url: str = field(repr=False)
    tenant: str
    shared_url: str = field(default="", repr=False)

    def _transact(self, work: Callable[[Connection], Result]) -> Result:
        return transact(self.url, work)

    def _transact_shared(self, work: Callable[[Connection], Result]) -> Result:
        """In the database that all tenants share: whose turn it is cannot be told from one tenant's rows."""
        return transact(self.shared_url or self.url, work)

    def _own(self, table: Table) -> ColumnElement[bool]:
        # The policies say the same; saying it here as well lets the planner use the keys.
        return table.c.tenant == self.tenant

    def _of_run(self, table: Table, run: Run | Batch) -> ColumnElement[bool]:
        return self._own(table) & (table.c.run_id == run.run_id)


def if_given(column: ColumnElement[str], value: str | None) -> list[ColumnElement[bool]]:
    """The condition that the column has this value; none without a value."""
    return [] if value is None else [column == value]
