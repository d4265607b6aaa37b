"""Connections: pools per process, transactions that wait for a database that is down, errors without secrets."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from pydantic_core import to_json
from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from tasks.domain.errors import (
    DatabaseUnavailable,
    InvalidDefinition,
    OrchardError,
    StorageUnavailable,
)

Result = TypeVar("Result")

RETRY_WAITS_S = (0.1, 0.3, 0.6, 1.0, 2.0, 3.0, 3.0)
"""Pauses between attempts at a transaction: a restarting server is back within ten seconds."""

MAX_ENGINES = 16
_kept_open = 2
_engines: OrderedDict[tuple[int, str], Engine] = OrderedDict()
_engines_lock = threading.Lock()


def normalised(url: str) -> str:
    """The URL with the driver that Orchard uses. Raises `InvalidDefinition` for anything but PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The text itself stays out of the message: it may hold a password.
        raise InvalidDefinition(
            "this is not a database URL", expected="postgresql://login:password@host:5432/database"
        ) from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise InvalidDefinition(
            "Orchard needs PostgreSQL", expected="postgresql://…", found=f"{parsed.get_backend_name()}://…"
        )
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def engine(url: str) -> Engine:
    """This process's pool for a URL. The least recently used pools are closed, so that a process that serves many
    tenants in turn does not keep connections to all of them."""
    key = (os.getpid(), url)  # a forked child must not share its parent's sockets
    with _engines_lock:
        if key not in _engines:
            # No ping before each use: a transaction that meets a dead connection is tried again anyway.
            _engines[key] = _create(url, pool_size=_kept_open, max_overflow=16 - _kept_open)
        _engines.move_to_end(key)
        evicted = _engines.popitem(last=False)[1] if len(_engines) > MAX_ENGINES else None
        result = _engines[key]
    if evicted is not None:
        evicted.dispose()
    return result


def keep_open(connections: int) -> None:
    """From now on, a new pool of this process keeps so many connections between uses. Opening one takes some
    milliseconds of the interpreter, for which everything else waits."""
    global _kept_open
    _kept_open = connections


def close_pools(login: str) -> None:
    """Closes this process's connections of a login, which has been cut off: one that comes back by the same name would
    be handed dead ones."""
    with _engines_lock:
        gone = [key for key in _engines if make_url(key[1]).username == login]
        closed = [_engines.pop(key) for key in gone]
    for each in closed:
        each.dispose()


def _create(url: str, **options: Any) -> Engine:
    return create_engine(
        url,
        connect_args={"connect_timeout": 5, "options": "-c timezone=UTC", "application_name": "orchard"},
        json_serializer=_json,
        hide_parameters=True,
        **options,
    )


def _json(value: object) -> str:
    # Receipts hold numbers of NumPy, and JSON has neither NaN nor infinity.
    return to_json(value, inf_nan_mode="null", fallback=lambda odd: odd.item()).decode()


def transact(url: str, work: Callable[[Connection], Result], patient: bool = True) -> Result:
    """Runs the work in one transaction and commits it.

    The whole transaction is tried again while the database is away, so the work must be safe to repeat. Raises
    `DatabaseUnavailable` after about ten seconds (unless `patient`, as soon as a fresh connection fails too),
    `StorageUnavailable` when the disk is full, `InvalidDefinition` when
    the login is refused.
    """
    for wait_s in (*(RETRY_WAITS_S if patient else (0,)), None):
        try:
            with engine(url).begin() as connection:
                return work(connection)
        except (DBAPIError, psycopg.Error) as error:
            problem = translated(error, url)
            if problem is None:
                raise
            if wait_s is None or not isinstance(problem, DatabaseUnavailable):
                raise problem from None
        time.sleep(wait_s)
    raise AssertionError("unreachable")


@contextmanager
def session(url: str) -> Iterator[Connection]:
    """A connection of its own, outside the pool and in autocommit mode; what it holds goes when it closes."""
    single = _create(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    connection = _opened(single, url)
    try:
        yield connection
    finally:
        connection.close()


def _opened(single: Engine, url: str) -> Connection:
    for wait_s in (*RETRY_WAITS_S, None):
        try:
            return single.connect()
        except (DBAPIError, psycopg.Error) as error:
            problem = translated(error, url)
            if problem is None:
                raise
            if wait_s is None or not isinstance(problem, DatabaseUnavailable):
                raise problem from None
        time.sleep(wait_s)
    raise AssertionError("unreachable")


def driver(connection: Connection) -> psycopg.Connection[Any]:
    """The psycopg connection below, for COPY."""
    found = connection.connection.driver_connection
    assert isinstance(found, psycopg.Connection)
    return found


def translated(error: DBAPIError | psycopg.Error, url: str) -> OrchardError | None:
    """The domain error for a failure of the database itself; None for a failure of the statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error  # COPY goes past SQLAlchemy
    if not isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)):
        return None
    parsed = make_url(url)
    where = f"database {parsed.database} at {parsed.host or parsed.query.get('host')}, login {parsed.username}"
    found = str(cause).strip()
    if isinstance(cause, errors.DiskFull):
        return StorageUnavailable("the database has no space left", found=found, where=where, hint="free some space")
    # A refused connection carries no SQLSTATE; its text is all there is.
    if cause.sqlstate is None and any(
        sign in found for sign in ("authentication failed", "does not exist", "is not permitted", "permission denied")
    ):
        return InvalidDefinition(
            "the database refuses this login",
            found=found.splitlines()[0],
            where=where,
            hint="onboard the tenant, or check the secret key and ORCHARD_DATABASE_URL",
        )
    return DatabaseUnavailable(
        "the database does not answer",
        found=found,
        where=where,
        hint="see that it runs; commands such as `orchard tenants list` start the embedded one",
    )
