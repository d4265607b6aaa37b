"""What only the operator does: onboard tenants, and look across them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from infra.database.cluster import Cluster, set_login, tenant_login
from infra.database.connect import driver, transact
from infra.database.frames import read_frame
from infra.database.records import PostgresRecords
from infra.database.tables import TenantRow, UseCaseRow, predictions_of, table
from infra.settings import derived_password
from tasks.domain.errors import NotFound
from tasks.domain.tenant import Tenant

TENANTS, USE_CASES = table(TenantRow), table(UseCaseRow)


@dataclass(frozen=True)
class Operator:
    """The operator's view of the database. It sees all tenants, so no step of a tenant's run ever gets it."""

    cluster: Cluster

    def onboard(self, tenant: Tenant) -> list[str]:
        """Creates or updates a tenant: its login, its partition of the predictions, its definition.

        Returns what changed, one line each, as `changes` does; nothing when the tenant is as defined already. Use
        cases that are no longer defined are switched off; their data stays.
        """
        return transact(self.cluster.operator_url, lambda connection: self._onboard(connection, tenant))

    def _onboard(self, connection: Connection, tenant: Tenant) -> list[str]:
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.onboard"))))
        before = _load(connection, tenant.id)
        changed = _changes(before, tenant)
        if before is None:
            _create_login(connection, tenant.id, self.cluster.secret_key)
        if not changed:
            return []
        values = {"name": tenant.name, "tier": tenant.tier.value}
        row = insert(TENANTS).values(tenant=tenant.id, **values)
        connection.execute(
            row.on_conflict_do_update(set_=values | {"updated_at": func.now()}, index_elements=["tenant"])
        )
        connection.execute(update(USE_CASES).where(USE_CASES.c.tenant == tenant.id).values(active=False))
        for position, use_case in enumerate(tenant.use_cases):
            spec = {
                "position": position,
                "active": True,
                "spec": use_case.model_dump(mode="json", by_alias=True),
            }
            wanted = insert(USE_CASES).values(tenant=tenant.id, use_case=use_case.id, **spec)
            connection.execute(wanted.on_conflict_do_update(set_=spec, index_elements=["tenant", "use_case"]))
        return changed

    def changes(self, tenant: Tenant) -> list[str]:
        """What onboarding this definition would change, one line each: `sales.gate.min_gain: 0.0 → 0.02`."""
        return transact(self.cluster.operator_url, lambda connection: _changes(_load(connection, tenant.id), tenant))

    def tenant(self, tenant_id: str) -> Tenant:
        """Raises `NotFound`."""
        found = transact(self.cluster.operator_url, lambda connection: _load(connection, tenant_id))
        if found is None:
            known = ", ".join(tenant.id for tenant in self.tenants())
            raise NotFound(
                f"there is no tenant {tenant_id!r}",
                expected=known,
                found=tenant_id,
                hint="orchard tenants list",
            )
        return found

    def tenants(self) -> list[Tenant]:
        """All tenants, by id."""

        def load(connection: Connection) -> list[Tenant]:
            ids = connection.scalars(select(TENANTS.c.tenant).order_by(TENANTS.c.tenant)).all()
            return [tenant for one in ids if (tenant := _load(connection, one)) is not None]

        return transact(self.cluster.operator_url, load)

    def records(self, tenant_id: str) -> PostgresRecords:
        """The tenant's own records, through its own login. It must be onboarded."""
        return PostgresRecords(self.cluster.tenant_url(tenant_id), tenant_id)

    def status(self) -> pd.DataFrame:
        """One row per (tenant, use case) that is active: tier, uploads, running and failed runs, champion, last run."""
        return self._frame(
            """
            SELECT u.tenant, t.tier, u.use_case,
                   (SELECT count(*) FROM uploads AS x WHERE (x.tenant, x.use_case) = (u.tenant, u.use_case)) AS uploads,
                   (SELECT count(*) FROM runs AS x WHERE (x.tenant, x.use_case) = (u.tenant, u.use_case)
                       AND x.status = 'running') AS running,
                   (SELECT count(*) FROM runs AS x WHERE (x.tenant, x.use_case) = (u.tenant, u.use_case)
                       AND x.status = 'failed') AS failed,
                   (SELECT version FROM releases AS x WHERE (x.tenant, x.use_case) = (u.tenant, u.use_case)
                       AND x.status = 'champion') AS champion,
                   (SELECT max(x.finished_at) FROM runs AS x
                       WHERE (x.tenant, x.use_case) = (u.tenant, u.use_case)) AS last_run_at
            FROM use_cases AS u JOIN tenants AS t ON t.tenant = u.tenant
            WHERE u.active ORDER BY u.tenant, u.position
            """
        )

    def receipts(self, tenant_id: str | None = None) -> pd.DataFrame:
        """Rows of the view `run_receipts`, of one tenant or of all, newest first."""
        return self._frame(
            """
            SELECT * FROM run_receipts WHERE tenant = coalesce(CAST(:tenant AS text), tenant)
            ORDER BY run_id DESC
            """,
            tenant=tenant_id,
        )

    def uploads(self, tenant_id: str | None = None) -> pd.DataFrame:
        """One row per upload, of one tenant or of all, in the order of arrival."""
        return self._frame(
            """
            SELECT * FROM uploads WHERE tenant = coalesce(CAST(:tenant AS text), tenant)
            ORDER BY received_at, tenant, use_case, seq
            """,
            tenant=tenant_id,
        )

    def health(self, tenant_id: str | None = None) -> pd.DataFrame:
        """Rows of the view `model_health`, of one tenant or of all."""
        return self._frame(
            """
            SELECT * FROM model_health WHERE tenant = coalesce(CAST(:tenant AS text), tenant)
            ORDER BY tenant, use_case, partition COLLATE "C"
            """,
            tenant=tenant_id,
        )

    def _frame(self, query: str, **parameters: object) -> pd.DataFrame:
        return transact(self.cluster.operator_url, lambda connection: read_frame(connection, text(query), parameters))


def _load(connection: Connection, tenant_id: str) -> Tenant | None:
    row = connection.execute(select(TENANTS).where(TENANTS.c.tenant == tenant_id)).mappings().one_or_none()
    if row is None:
        return None
    mine = (USE_CASES.c.tenant == tenant_id) & USE_CASES.c.active
    specs = connection.scalars(select(USE_CASES.c.spec).where(mine).order_by(USE_CASES.c.position)).all()
    return Tenant.model_validate({"id": tenant_id, "name": row["name"], "tier": row["tier"], "use_cases": specs})


def _create_login(connection: Connection, tenant_id: str, secret_key: SecretStr) -> None:
    login, partition = tenant_login(tenant_id), predictions_of(tenant_id)
    set_login(connection, login, derived_password(secret_key, f"database:{tenant_id}"))
    names = {
        "login": sql.Identifier(login),
        "partition": sql.Identifier(partition),
        "tenant": sql.Literal(tenant_id),
        "database": sql.Identifier(driver(connection).info.dbname),
    }
    # COPY into a table with row-level security is refused, so each tenant loads into a partition of its own, which
    # no other tenant has any right to, and which takes no other tenant's rows. The default spares sending the tenant.
    for statement in (
        "GRANT orchard_tenants TO {login}",
        "GRANT CONNECT ON DATABASE {database} TO {login}",
        "CREATE TABLE {partition} PARTITION OF predictions (tenant DEFAULT {tenant}) FOR VALUES IN ({tenant})",
        "GRANT SELECT, INSERT, DELETE ON {partition} TO {login}",
    ):
        driver(connection).execute(sql.SQL(statement).format(**names))


def _changes(before: Tenant | None, after: Tenant) -> list[str]:
    if before is None:
        return [f"tenant {after.id}: new", *(f"use case {use_case.id}: new" for use_case in after.use_cases)]
    old, new = _flat(before), _flat(after)
    lines = []
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name):
            lines.append(f"{name}: {old.get(name, 'nothing')} → {new.get(name, 'nothing')}")
    if not lines and before.model_dump_json() != after.model_dump_json():
        lines.append("order of use cases or columns")
    return lines


def _flat(tenant: Tenant) -> dict[str, object]:
    fields: dict[str, Any] = {"name": tenant.name, "tier": tenant.tier.value}
    for use_case in tenant.use_cases:
        fields[use_case.id] = use_case.model_dump(mode="json", by_alias=True, exclude={"id"})
    return dict(_leaves("", fields))


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value
