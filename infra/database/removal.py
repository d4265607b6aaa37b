"""Removing a tenant from the databases: its rows, its partition of the predictions, a silo's database, its login."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import errors, sql
from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, text, update

from infra.database.cluster import Cluster, drop_silo, silo_database, tenant_login
from infra.database.connect import close_pools, driver, session, transact
from infra.database.price_tables import metadata
from infra.database.tables import predictions_of, table
from infra.database.trust_tables import AuditDetailRow, ErasureRow
from tasks.domain.errors import Busy, Permanent

KEPT = {table(ErasureRow).name, table(AuditDetailRow).name}
"""They have a column `tenant`, and are emptied by those that they belong to: the erasure itself, and the audit."""

READERS_S = 300
"""Detaching a part of the predictions waits for every transaction that has read predictions."""

DETACHED = text(
    """
    SELECT inhdetachpending FROM pg_inherits
    WHERE inhrelid = to_regclass(:name) AND inhparent = to_regclass('predictions')
    """
)


@contextmanager
def _patience(connection: Connection) -> Iterator[None]:
    """Waits for other sessions, but not for ever."""
    driver(connection).execute(f"SET statement_timeout = '{READERS_S}s'")
    try:
        yield
    except errors.QueryCanceled:
        raise Busy(
            f"a session that has read predictions does not end within {READERS_S} s",
            hint="see pg_stat_activity for sessions that are idle in transaction, end them, and call again",
        ) from None


def tables_of_tenants() -> list[Table]:
    """The tables whose rows are tenants', those that refer to others first."""
    return [each for each in reversed(metadata.sorted_tables) if "tenant" in each.c and each.name not in KEPT]


@dataclass(frozen=True)
class TenantRemoval:
    """One tenant's traces in a cluster's databases. Only the operator may hold it. Every method may be repeated."""

    cluster: Cluster
    tenant: str

    def urls(self) -> list[str]:
        """The operator's URLs of the databases that have the tenant's rows: the shared one, and its own, if it has one
        (a move that was cut off may have left it)."""
        silo = [self.cluster.silo_url(self.tenant)] if self._has_silo() else []
        return [self.cluster.operator_url, *silo]

    def count_rows(self) -> dict[str, int]:
        """Rows per table, over all databases; tables without any are left out."""
        counts: dict[str, int] = {}
        for url in self.urls():
            for name, count in transact(url, self._counted).items():
                counts[name] = counts.get(name, 0) + count
        return {name: count for name, count in counts.items() if count}

    def shut_out(self) -> None:
        """Its login opens nothing any more: it may not connect, and what is connected is cut off."""
        login = tenant_login(self.tenant)
        with session(self.cluster.operator_url) as connection:
            if self._known(connection, login):
                self._execute(connection, "ALTER ROLE {login} NOLOGIN", login=login)
                self._execute(
                    connection, "GRANT {login} TO CURRENT_USER WITH INHERIT TRUE", login=login
                )  # or its sessions are not ours
                statement = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :login")
                connection.execute(statement, {"login": login})
        close_pools(login)

    def count_keys(self) -> dict[str, int]:
        """Its API keys."""
        return {"API keys": transact(self.cluster.operator_url, lambda c: self._count(c, metadata.tables["api_keys"]))}

    def remove_keys(self) -> None:
        """Its API keys: within seconds the API knows nobody by them."""
        self._delete(self.cluster.operator_url, "api_keys")

    def count_secrets(self) -> dict[str, int]:
        """The keys of its hashed columns."""
        secrets = metadata.tables["tenant_secrets"]
        return {"keys": sum(transact(url, lambda connection: self._count(connection, secrets)) for url in self.urls())}

    def remove_secrets(self) -> None:
        """The key of its hashed columns: without it, nothing can be hashed alike again."""
        for url in self.urls():
            self._delete(url, "tenant_secrets")

    def open_jobs(self) -> int:
        """How many of its jobs wait or run."""
        jobs = metadata.tables["jobs"]
        query = select(func.count()).select_from(jobs).where(self._open(jobs))
        return transact(self.cluster.operator_url, lambda connection: connection.scalar(query)) or 0

    def upload_ids(self) -> list[str]:
        """Ids of all its uploads: folders in which they are staged bear them."""
        rows = metadata.tables["uploads"]
        query = select(rows.c.upload_id).where(rows.c.tenant == self.tenant)
        return [each for url in self.urls() for each in transact(url, lambda c: c.scalars(query).all())]

    def end_jobs(self, why: str) -> None:
        """None of its jobs waits or runs any more."""
        jobs = metadata.tables["jobs"]
        values = {"status": "failed", "finished_at": func.now(), "error": why}
        statement = update(jobs).where(self._open(jobs)).values(values)
        transact(self.cluster.operator_url, lambda connection: connection.execute(statement))

    def remove_rows(self) -> None:
        """All its rows, and its partition of the predictions; then a database of its own, which nobody looks for when
        there is no such tenant any more. Raises `Busy` when somebody reads predictions all the time."""
        partition = predictions_of(self.tenant)
        with session(self.cluster.operator_url) as connection, _patience(connection):
            # Nobody who reads predictions has to wait, as they would for DROP TABLE of a partition in place.
            if (pending := connection.scalar(DETACHED, {"name": f'"{partition}"'})) is not None:
                how = "FINALIZE" if pending else "CONCURRENTLY"
                statement = f"ALTER TABLE predictions DETACH PARTITION {{partition}} {how}"
                self._execute(connection, statement, partition=partition)
            self._execute(connection, "DROP TABLE IF EXISTS {partition}", partition=partition)

        def work(connection: Connection) -> None:
            for rows in tables_of_tenants():
                if rows.name != "predictions":
                    connection.execute(delete(rows).where(rows.c.tenant == self.tenant))

        transact(self.cluster.operator_url, work)
        if self._has_silo():
            drop_silo(self.cluster, self.tenant)

    def count_logins(self) -> dict[str, int]:
        """Its login."""
        login = tenant_login(self.tenant)
        return {"logins": int(transact(self.cluster.operator_url, lambda c: self._known(c, login)))}

    def remove_login(self) -> None:
        """Its login, with all that was granted to it. Raises `Permanent` where something elsewhere hangs on it."""
        login = tenant_login(self.tenant)
        with session(self.cluster.operator_url) as connection:
            if not self._known(connection, login):
                return
            self._execute(connection, "GRANT {login} TO CURRENT_USER WITH INHERIT TRUE", login=login)
            self._execute(connection, "DROP OWNED BY {login}", login=login)
            try:
                self._execute(connection, "DROP ROLE {login}", login=login)
            except errors.DependentObjectsStillExist as error:
                raise Permanent(
                    f"the login {login} cannot be dropped: something was granted to it that Orchard did not grant",
                    found=str(error.diag.message_detail),
                    hint="revoke that, and call again",
                ) from None

    def _open(self, jobs: Table) -> ColumnElement[bool]:
        return (jobs.c.tenant == self.tenant) & jobs.c.status.in_(["waiting", "submitted", "running"])

    def _delete(self, url: str, name: str) -> None:
        rows = metadata.tables[name]
        transact(url, lambda connection: connection.execute(delete(rows).where(rows.c.tenant == self.tenant)))

    def _count(self, connection: Connection, rows: Table) -> int:
        return connection.scalar(select(func.count()).select_from(rows).where(rows.c.tenant == self.tenant)) or 0

    def _counted(self, connection: Connection) -> dict[str, int]:
        return {rows.name: self._count(connection, rows) for rows in tables_of_tenants()}

    def _has_silo(self) -> bool:
        query = text("SELECT 1 FROM pg_database WHERE datname = :name")
        found = transact(self.cluster.operator_url, lambda c: c.scalar(query, {"name": silo_database(self.tenant)}))
        return found is not None

    @staticmethod
    def _known(connection: Connection, login: str) -> bool:
        return connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :login"), {"login": login}) is not None

    @staticmethod
    def _execute(connection: Connection, statement: str, **names: str) -> None:
        identifiers = {key: sql.Identifier(name) for key, name in names.items()}
        driver(connection).execute(sql.SQL(statement).format(**identifiers))
