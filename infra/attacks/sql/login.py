"""The attacker at the database: what its login is answered. Nothing that it does is ever committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Composed
from sqlalchemy import make_url

from infra.attacks.attempt import Finding, denied, succeeded
from infra.attacks.scene import Scene

PRIVILEGE, BOUNDS, UNSUPPORTED = "42501", "23514", "0A000"
"""SQLSTATE of what is not allowed, of a row outside the bounds of a partition, of what this server cannot do."""

LET_THROUGH = ("23505", "23503", "23502", "23514")
"""What stops a row (a key, a reference, a null, a condition) only after its policy has let it in."""

CONNECT_S = 10
DISALLOWED = ("permission denied for database", "authentication failed", "not permitted to log in", "no pg_hba.conf")


Query = str | SQL | Composed


class Answer(NamedTuple):
    """What a statement gave: its rows, and how many rows it touched."""

    rows: Sequence[tuple[Any, ...]]
    touched: int


class Refusal(NamedTuple):
    """Why the database said no."""

    code: str
    message: str


class Shut(Exception):
    """The database does not let this login in."""


@contextmanager
def session(url: str, **changes: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A session of its own; `changes` are parameters of the connection. Raises `Shut` where it is not let in."""
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=CONNECT_S, **changes)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        if error.sqlstate == PRIVILEGE or any(sign in str(error) for sign in DISALLOWED):
            raise Shut(str(error).strip()) from None
        raise
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def shared(scene: Scene, url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A session that attempts share, because whatever each says in it is taken back. Raises `Shut`."""
    found = scene.kept.get(url)
    if found is None:
        try:
            found = scene.cleanup.enter_context(session(url))
        except Shut as shut:
            found = shut
        scene.kept[url] = found
    if isinstance(found, Shut):
        raise Shut(*found.args)
    assert isinstance(found, psycopg.Connection)
    yield found


def say(
    connection: psycopg.Connection[tuple[Any, ...]],
    statement: Query,
    values: Mapping[str, object] | None = None,
    *,
    expected: Sequence[str] = (PRIVILEGE,),
) -> Answer | Refusal:
    """Says a statement, or several without values, and takes back what it did. Raises what is no expected refusal."""
    try:
        with connection.transaction(force_rollback=True):
            return tell(connection, statement, values)
    except psycopg.Error as error:
        if error.sqlstate not in expected:
            raise
        return Refusal(str(error.sqlstate), str(error).strip())


def tell(
    connection: psycopg.Connection[tuple[Any, ...]], statement: Query, values: Mapping[str, object] | None = None
) -> Answer:
    """The rows of the last of the statements, within whatever transaction there is."""
    cursor = connection.execute(statement.encode() if isinstance(statement, str) else statement, values)
    while cursor.nextset():
        pass
    rows = cursor.fetchall() if cursor.description is not None else []
    return Answer(rows, cursor.rowcount)


def forbidden(scene: Scene, url: str, statement: Query, *codes: str, transaction: bool = True) -> Finding:
    """Denied when the database refuses the statement with one of the codes (by default, for want of a privilege)."""
    expected = codes or (PRIVILEGE,)
    try:
        with shared(scene, url) as connection:
            if transaction:
                answer = say(connection, statement, expected=expected)
            else:
                answer = _outside(connection, statement, expected)
    except Shut as shut:
        return denied(f"the login is not let in: {shut}")
    if isinstance(answer, Refusal):
        return denied(f"{answer.code}: {answer.message}")
    return succeeded(f"the database did it: {answer.touched} rows")


def _outside(connection: psycopg.Connection[Any], statement: Query, expected: Sequence[str]) -> Answer | Refusal:
    """For the few statements that no transaction may hold; each of them is harmless where it works."""
    try:
        return tell(connection, statement)
    except psycopg.Error as error:
        if error.sqlstate not in expected:
            raise
        return Refusal(str(error.sqlstate), str(error).strip())
