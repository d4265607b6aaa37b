"""The databases of one Orchard and the logins that they belong to.

Four databases of one PostgreSQL cluster: `orchard` itself, `prefect`, `mlflow_training` and `mlflow_production`. Each
belongs to a login of its own that is no superuser, and nobody else may connect to it; tenants may connect to the
first only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import ProgrammingError

from infra import postgres
from infra.database.connect import driver, normalised, session, transact
from infra.database.migrate import migrate
from infra.database.rates import copy_rates, provide_default
from infra.settings import Settings, derived_password
from tasks.domain.errors import DatabaseUnavailable, InvalidDefinition

OPERATOR = "orchard"
TENANTS_ROLE = "orchard_tenants"
"""Role that every tenant's login is a member of: what any tenant may do. The first migration makes it."""

OWN_TENANT = "CASE WHEN starts_with(session_user, 'tenant_') THEN substr(session_user, 8) END"
"""SQL: the tenant of the login itself, which no session can change; null for every other login."""

SILOS = text("SELECT tenant FROM tenants WHERE isolation = 'silo' ORDER BY tenant")
SERVICES = ("prefect", "mlflow_training", "mlflow_production")
"""Logins and databases (of the same name) of the servers beside Orchard."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster: how each login connects. Only the operator may hold it; a tenant's part is `tenant_url`."""

    operator_url: str = field(repr=False)
    secret_key: SecretStr = field(repr=False)

    def tenant_url(self, tenant: str, silo: bool = False) -> str:
        """URL of a tenant's own login: in the shared database or, of a silo, in its own."""
        password = derived_password(self.secret_key, f"database:{tenant}")
        return self._url(tenant_login(tenant), password, silo_database(tenant) if silo else None)

    def tenant_registry_urls(self, tenant: str) -> tuple[str, str]:
        """URLs of a tenant's own login in MLflow's databases, training and production."""
        password = derived_password(self.secret_key, f"database:{tenant}")
        training, production = (self._url(tenant_login(tenant), password, name) for name in SERVICES[1:])
        return training, production

    def silo_url(self, tenant: str) -> str:
        """URL of the operator's login in a silo's own database."""
        return make_url(self.operator_url).set(database=silo_database(tenant)).render_as_string(hide_password=False)

    @property
    def training_registry_url(self) -> str:
        """MLflow's database of the training registry."""
        return self._service_url("mlflow_training")

    @property
    def production_registry_url(self) -> str:
        """MLflow's database of the production registry."""
        return self._service_url("mlflow_production")

    @property
    def prefect_url(self) -> str:
        """Database of Prefect's server, with the asynchronous driver that it needs."""
        return self._service_url("prefect").replace("+psycopg://", "+asyncpg://", 1)

    def _service_url(self, name: str) -> str:
        return self._url(name, derived_password(self.secret_key, f"service:{name}"), name)

    def _url(self, login: str, password: str, database: str | None) -> str:
        url = make_url(self.operator_url).set(username=login, password=password)
        return (url.set(database=database) if database else url).render_as_string(hide_password=False)


def tenant_login(tenant: str) -> str:
    """Name of a tenant's database login; the row-level policies rely on this form."""
    return f"tenant_{tenant}"


def silo_database(tenant: str) -> str:
    """Name of a silo's own database; no other database of ours begins like that."""
    return f"tenant_{tenant}"


def connected_cluster(settings: Settings) -> Cluster:
    """The cluster as it is, nothing is started. Raises `DatabaseUnavailable` when the embedded one does not run."""
    if settings.database_url is not None:
        return Cluster(normalised(settings.database_url), settings.secret_key)
    address = postgres.address(settings.home)
    if address is None:
        raise DatabaseUnavailable(
            "the embedded PostgreSQL does not run",
            where=str(settings.home),
            hint="commands such as `orchard tenants list` start it",
        )
    return Cluster(address.url(OPERATOR, settings.service_password(OPERATOR), OPERATOR), settings.secret_key)


def started_cluster(settings: Settings) -> Cluster:
    """The cluster, started if it is the embedded one, with its logins, databases and tables. Safe to call again.

    With a database of your own, the operator's login needs CREATEROLE and, for the databases of MLflow and Prefect,
    CREATEDB (or settings that put those elsewhere).
    """
    elsewhere = {
        "prefect": settings.prefect_api_url,
        "mlflow_training": settings.training_registry_uri,
        "mlflow_production": settings.production_registry_uri,
    }
    services = tuple(name for name in SERVICES if elsewhere[name] is None)
    if settings.database_url is None:
        admin_url = postgres.start(settings.home, settings.service_password(postgres.ADMIN), settings.postgres_port)
        cluster = connected_cluster(settings)
        _provide(admin_url, cluster, (OPERATOR, *services))
    else:
        cluster = connected_cluster(settings)
        check_reachable(cluster)
        _provide(cluster.operator_url, cluster, services)
    migrate(cluster.operator_url)
    provide_default(cluster.operator_url)
    for tenant in transact(cluster.operator_url, lambda c: c.scalars(SILOS).all()):
        provide_silo(cluster, tenant)
    return cluster


def provide_silo(cluster: Cluster, tenant: str) -> None:
    """Creates a silo's own database if need be, and brings it to the newest schema. Tables and policies are those of
    the shared one: a silo is a second lock, not another."""
    name = silo_database(tenant)
    try:
        with session(cluster.operator_url) as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtext('orchard.provide'))"))
            if not connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}):
                connection.execute(text(f'CREATE DATABASE "{name}"'))
            connection.execute(text(f'REVOKE CONNECT, TEMPORARY ON DATABASE "{name}" FROM PUBLIC'))
    except (psycopg.errors.InsufficientPrivilege, ProgrammingError) as error:
        raise InvalidDefinition(
            f"the operator's login may not create the database of silo {tenant!r}",
            expected=f"CREATEDB, or an existing database {name} that it owns",
            found=str(getattr(error, "orig", error)).strip(),
            hint="ALTER ROLE … CREATEDB, or create the database by hand",
        ) from None
    migrate(cluster.silo_url(tenant))
    copy_rates(cluster.operator_url, cluster.silo_url(tenant))


def drop_silo(cluster: Cluster, tenant: str) -> None:
    """Drops a silo's own database, if there is one, whoever is connected."""
    login = tenant_login(tenant)
    with session(cluster.operator_url) as connection:
        # Only a member of its role may end a login's sessions.
        connection.execute(text(f'GRANT "{login}" TO CURRENT_USER WITH INHERIT TRUE'))
        connection.execute(text(f'DROP DATABASE IF EXISTS "{silo_database(tenant)}" WITH (FORCE)'))
        connection.execute(text(f'REVOKE "{login}" FROM CURRENT_USER'))


def _provide(admin_url: str, cluster: Cluster, names: tuple[str, ...]) -> None:
    """Creates the logins and databases that are missing; what an earlier attempt left half done is completed."""
    try:
        with session(admin_url) as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtext('orchard.provide'))"))
            databases = set(connection.scalars(text("SELECT datname FROM pg_database")))
            for name in names:
                if name not in databases:
                    set_login(connection, name, derived_password(cluster.secret_key, f"service:{name}"))
                    connection.execute(text(f'GRANT "{name}" TO CURRENT_USER'))  # only a member may hand over to it
                    connection.execute(text(f'CREATE DATABASE "{name}" OWNER "{name}"'))
                if name == OPERATOR:
                    connection.execute(text(f'ALTER ROLE "{name}" CREATEROLE CREATEDB'))
                connection.execute(text(f'REVOKE CONNECT, TEMPORARY ON DATABASE "{name}" FROM PUBLIC'))
            if OPERATOR in names:  # the cluster is Orchard's alone, so nobody has business in its other databases
                connection.execute(text("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC"))
    except (psycopg.errors.InsufficientPrivilege, ProgrammingError) as error:
        raise InvalidDefinition(
            "the operator's login may not create Orchard's databases",
            expected=f"CREATEROLE and CREATEDB, or existing databases {', '.join(names)}",
            found=str(getattr(error, "orig", error)).strip(),
            hint="see ORCHARD_DATABASE_URL; settings can put Prefect's and MLflow's databases elsewhere",
        ) from None
    if "prefect" in names:
        # Prefect's server searches names by trigram.
        url = make_url(admin_url).set(database="prefect").render_as_string(hide_password=False)
        transact(url, lambda own: own.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm")))


def set_login(connection: Connection, login: str, password: str) -> None:
    """Creates the login if need be, and sets its password. Only the SCRAM verifier travels, never the password."""
    verifier = driver(connection).pgconn.encrypt_password(password.encode(), login.encode(), b"scram-sha-256")
    exists = connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :login"), {"login": login})
    statement = sql.SQL("{action} ROLE {login} LOGIN PASSWORD {verifier}").format(
        action=sql.SQL("ALTER" if exists else "CREATE"),
        login=sql.Identifier(login),
        verifier=sql.Literal(verifier.decode()),
    )
    driver(connection).execute(statement)


def check_reachable(cluster: Cluster) -> str:
    """Version of the server that answers. Raises `DatabaseUnavailable`, or `InvalidDefinition` below version 16."""
    number, version = transact(
        cluster.operator_url,
        lambda connection: connection.execute(
            text("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
        ).one(),
    )
    if number < 160000:
        raise InvalidDefinition("this PostgreSQL is too old", expected="16 or later", found=version)
    return str(version)
