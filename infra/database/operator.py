"""What only the operator does: onboard tenants, and look across them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from infra.database.audit import SOMEBODY, Actor, Audit
from infra.database.cluster import SILOS, Cluster, provide_silo, set_login, tenant_login
from infra.database.connect import driver, transact
from infra.database.frames import read_frame
from infra.database.memberships import note_tier
from infra.database.pulls import SCHEDULES
from infra.database.records import PostgresRecords
from infra.database.tables import TenantRow, UseCaseRow, predictions_of, table
from infra.database.trust_tables import TenantSecretRow
from infra.settings import derived_password
from tasks.domain.changes import changes_of
from tasks.domain.errors import NotFound
from tasks.domain.job import JobKind
from tasks.domain.names import is_tenant_id
from tasks.domain.tenant import Isolation, Tenant, TenantState
from tasks.domain.use_case import UseCase
from tasks.personal import Pseudonyms

MAX_TOLD = 50
"""So many changed fields an entry of the audit names."""

TENANTS, USE_CASES, SECRETS = table(TenantRow), table(UseCaseRow), table(TenantSecretRow)


@dataclass(frozen=True)
class Operator:
    """The operator's view of the database. It sees all tenants, so no step of a tenant's run ever gets it. `by` is who
    changes tenants through it."""

    cluster: Cluster
    by: Actor = SOMEBODY

    def onboard(self, tenant: Tenant) -> list[str]:
        """Creates or updates a tenant: its login, its partition of the predictions, its definition, a silo's database.

        Returns what changed, one line each, as `changes` does; nothing when the tenant is as defined already. Use
        cases that are no longer defined are switched off; their data stays. A tenant that is known stays isolated as
        it is, whatever the definition says: to move its data is another matter.
        """
        known = self._isolation(tenant.id)
        isolation = known or tenant.isolation or Isolation.POOL
        placed = tenant.model_copy(update={"isolation": isolation})
        if isolation is Isolation.SILO:
            self.define_silo(placed)
        once = secrets.token_hex(16)

        def work(connection: Connection) -> list[str]:
            changed = self._onboard_here(connection, placed)
            if changed:
                self._tell(connection, placed, "onboard" if known is None else "change", changed, once)
            return changed

        return transact(self.cluster.operator_url, work)

    def _tell(self, connection: Connection, tenant: Tenant, act: str, changed: Sequence[str], once: str) -> None:
        """The entry in the audit: which fields changed, and not from what to what."""
        facts = {
            "tier": tenant.tier,
            "isolation": tenant.isolation,
            "changed": [line.split(": ")[0] for line in changed[:MAX_TOLD]],
            "changes": len(changed),
        }
        audit = Audit(self.cluster)
        audit.add(connection, f"tenant.{act}", "done", by=self.by, tenant=tenant.id, once=once, **facts)

    def _onboard_here(self, connection: Connection, tenant: Tenant) -> list[str]:
        """In the shared database, which alone has the key of the tenant's pseudonyms, wherever its data is."""
        changed = self._onboard(connection, tenant)
        secret = insert(SECRETS).values(tenant=tenant.id, personal_key=secrets.token_hex(32))
        connection.execute(secret.on_conflict_do_nothing())
        note_tier(connection, tenant.id, tenant.tier)
        return changed

    def define_silo(self, tenant: Tenant) -> None:
        """Makes a tenant's own database, with its definition; its data may still be elsewhere."""
        silo = tenant.model_copy(update={"isolation": Isolation.SILO})
        provide_silo(self.cluster, tenant.id)
        transact(self.cluster.silo_url(tenant.id), lambda connection: self._onboard(connection, silo))

    def set_isolation(self, tenant_id: str, isolation: Isolation) -> None:
        """Says where a tenant's data is from now on."""
        statement = update(TENANTS).where(TENANTS.c.tenant == tenant_id).values(isolation=isolation.value)
        transact(self.cluster.operator_url, lambda connection: connection.execute(statement))

    def _isolation(self, tenant_id: str) -> Isolation | None:
        query = select(TENANTS.c.isolation).where(TENANTS.c.tenant == tenant_id)
        found = transact(self.cluster.operator_url, lambda connection: connection.scalar(query))
        return None if found is None else Isolation(found)

    def _onboard(self, connection: Connection, tenant: Tenant) -> list[str]:
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.onboard"))))
        before = _load(connection, tenant.id)
        changed = changes_of(before, tenant)
        if before is None:
            _create_login(connection, tenant.id, self.cluster.secret_key)
        if not changed:
            return []
        values = {"name": tenant.name, "tier": tenant.tier.value}
        row = insert(TENANTS).values(tenant=tenant.id, isolation=str(tenant.isolation), **values)
        connection.execute(
            row.on_conflict_do_update(set_=values | {"updated_at": func.now()}, index_elements=["tenant"])
        )
        if any(use_case.online.precomputed_s is not None for use_case in tenant.use_cases):
            # Only where single rows are looked up: every loaded row has to pay for an index.
            index = sql.SQL("CREATE INDEX IF NOT EXISTS {name} ON {partition} USING hash (row_key)").format(
                name=sql.Identifier(f"{predictions_of(tenant.id)}_row_key"),
                partition=sql.Identifier(predictions_of(tenant.id)),
            )
            driver(connection).execute(index)
        connection.execute(update(USE_CASES).where(USE_CASES.c.tenant == tenant.id).values(active=False))
        former = {use_case.id: _schedules(use_case) for use_case in (before.use_cases if before else ())}
        for position, use_case in enumerate(tenant.use_cases):
            spec = {
                "position": position,
                "active": True,
                "spec": use_case.model_dump(mode="json", by_alias=True),
            }
            wanted = insert(USE_CASES).values(tenant=tenant.id, use_case=use_case.id, **spec)
            connection.execute(wanted.on_conflict_do_update(set_=spec, index_elements=["tenant", "use_case"]))
            known = former.get(use_case.id, {})
            moved = [kind for kind, schedule in _schedules(use_case).items() if schedule != known.get(kind)]
            # What an earlier schedule said does not count any more: when it is due is worked out anew.
            mine = (SCHEDULES.c.tenant == tenant.id) & (SCHEDULES.c.use_case == use_case.id)
            connection.execute(update(SCHEDULES).where(mine, SCHEDULES.c.kind.in_(moved)).values(due_at=None))
        return changed

    def changes(self, tenant: Tenant) -> list[str]:
        """What onboarding this definition would change, one line each: `sales.gate.min_gain: 0.0 → 0.02`."""
        return transact(self.cluster.operator_url, lambda connection: changes_of(_load(connection, tenant.id), tenant))

    def tenant(self, tenant_id: str) -> Tenant:
        """Raises `NotFound`, whatever the text."""
        known = is_tenant_id(tenant_id)
        found = transact(self.cluster.operator_url, lambda connection: _load(connection, tenant_id)) if known else None
        if found is None:
            raise _unknown(tenant_id, [tenant.id for tenant in self.tenants()])
        return found

    def tenants(self, state: TenantState | None = None) -> list[Tenant]:
        """All tenants, or those in that state, by id."""
        query = select(TENANTS.c.tenant).order_by(TENANTS.c.tenant)
        wanted = query if state is None else query.where(TENANTS.c.state == state.value)

        def load(connection: Connection) -> list[Tenant]:
            ids = connection.scalars(wanted).all()
            return [tenant for one in ids if (tenant := _load(connection, one)) is not None]

        return transact(self.cluster.operator_url, load)

    def former_use_cases(self, tenant_id: str) -> list[UseCase]:
        """Use cases that were switched off, and whose data stays."""
        former = (USE_CASES.c.tenant == tenant_id) & ~USE_CASES.c.active
        query = select(USE_CASES.c.spec).where(former).order_by(USE_CASES.c.use_case)
        specs = transact(self.cluster.operator_url, lambda connection: connection.scalars(query).all())
        return [UseCase.model_validate(spec) for spec in specs]

    def records(self, tenant_id: str) -> PostgresRecords:
        """The tenant's own records, through its own login. It must be onboarded."""
        return records_of(self.cluster, tenant_id, self._isolation(tenant_id))

    def pseudonyms(self, tenant_id: str) -> Pseudonyms:
        """What the tenant's hashed personal columns are hashed by. Raises `NotFound`."""
        query = select(SECRETS.c.personal_key).where(SECRETS.c.tenant == tenant_id)
        key = transact(self.cluster.operator_url, lambda connection: connection.scalar(query))
        if key is None:
            raise _unknown(tenant_id, [tenant.id for tenant in self.tenants()])
        return Pseudonyms(bytes.fromhex(key))

    def state(self, tenant_id: str) -> TenantState:
        """Whether work is taken in. Raises `NotFound`."""
        query = select(TENANTS.c.state).where(TENANTS.c.tenant == tenant_id)
        found = transact(self.cluster.operator_url, lambda connection: connection.scalar(query))
        if found is None:
            raise _unknown(tenant_id, [tenant.id for tenant in self.tenants()])
        return TenantState(found)

    def set_state(self, tenant_id: str, state: TenantState) -> None:
        """Lets work in, or keeps it out, in every database that has the tenant."""
        statement = update(TENANTS).where(TENANTS.c.tenant == tenant_id).values(state=state.value)
        for url in self._urls_of(tenant_id):
            transact(url, lambda connection: connection.execute(statement))

    def data_urls(self, patient: bool = True) -> dict[str | None, str]:
        """Where tenants' rows are: the shared database (None), and that of each silo, by tenant."""
        silos = transact(self.cluster.operator_url, lambda connection: connection.scalars(SILOS).all(), patient)
        return {None: self.cluster.operator_url, **{tenant: self.cluster.silo_url(tenant) for tenant in silos}}

    def _urls_of(self, tenant_id: str) -> list[str]:
        return [url for silo, url in self.data_urls().items() if silo in (None, tenant_id)]

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
            """,
            sort=["tenant"],
        )

    def receipts(self, tenant_id: str | None = None) -> pd.DataFrame:
        """Rows of the view `run_receipts`, of one tenant or of all, newest first."""
        return self._frame(
            """
            SELECT * FROM run_receipts WHERE tenant = coalesce(CAST(:tenant AS text), tenant)
            ORDER BY run_id DESC
            """,
            sort=["-started_at"],
            tenant=tenant_id,
        )

    def uploads(self, tenant_id: str | None = None) -> pd.DataFrame:
        """One row per upload, of one tenant or of all, in the order of arrival."""
        return self._frame(
            """
            SELECT * FROM uploads WHERE tenant = coalesce(CAST(:tenant AS text), tenant)
            ORDER BY received_at, tenant, use_case, seq
            """,
            sort=["received_at", "tenant", "use_case", "seq"],
            tenant=tenant_id,
        )

    def health(self, tenant_id: str | None = None) -> pd.DataFrame:
        """Rows of the view `model_health`, of one tenant or of all."""
        return self._frame(
            """
            SELECT * FROM model_health WHERE tenant = coalesce(CAST(:tenant AS text), tenant)
            ORDER BY tenant, use_case, partition COLLATE "C"
            """,
            sort=["tenant", "use_case", "partition"],
            tenant=tenant_id,
        )

    def _frame(self, query: str, sort: Sequence[str], **parameters: object) -> pd.DataFrame:
        """Rows of all databases, each tenant's from the one where its data is."""
        urls = self.data_urls()
        frames = []
        for silo, url in urls.items():
            frame = transact(url, lambda connection: read_frame(connection, text(query), parameters))
            frames.append(frame[~frame["tenant"].isin(urls.keys())] if silo is None and len(urls) > 1 else frame)
        if len(frames) == 1:
            return frames[0]
        descending = [name.startswith("-") for name in sort]
        found = pd.concat([frame for frame in frames if len(frame)] or frames[:1])
        by = [name.removeprefix("-") for name in sort]
        return found.sort_values(by, ascending=[not each for each in descending], kind="stable", ignore_index=True)


def records_of(cluster: Cluster, tenant_id: str, isolation: Isolation | None) -> PostgresRecords:
    """A tenant's records, wherever they are."""
    if isolation is Isolation.SILO:
        return PostgresRecords(cluster.tenant_url(tenant_id, silo=True), tenant_id, cluster.tenant_url(tenant_id))
    return PostgresRecords(cluster.tenant_url(tenant_id), tenant_id)


def _schedules(use_case: UseCase) -> dict[JobKind, str | None]:
    """When jobs of which kind come by themselves."""
    pull = None if use_case.pull is None else use_case.pull.schedule
    return {JobKind.REFRESH: use_case.schedule, JobKind.PULL: pull}


def _unknown(tenant_id: str, known: Sequence[str]) -> NotFound:
    return NotFound(
        f"there is no tenant {tenant_id!r}", expected=", ".join(known), found=tenant_id, hint="orchard tenants list"
    )


def _load(connection: Connection, tenant_id: str) -> Tenant | None:
    row = connection.execute(select(TENANTS).where(TENANTS.c.tenant == tenant_id)).mappings().one_or_none()
    if row is None:
        return None
    mine = (USE_CASES.c.tenant == tenant_id) & USE_CASES.c.active
    specs = connection.scalars(select(USE_CASES.c.spec).where(mine).order_by(USE_CASES.c.position)).all()
    known = {name: row[name] for name in ("name", "tier", "isolation")}
    return Tenant.model_validate({"id": tenant_id, **known, "use_cases": specs})


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
