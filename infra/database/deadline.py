"""An end to waiting for a database that takes what it is sent and says nothing: stopped, or behind a dead network.

The server's own time limits do not help where the server does nothing, and the client's library waits for ever. So the
connection is broken off from outside: whoever waits on it gets the error of a connection that was lost, and tries
again, or gives up, as ever. It holds for all that a thread does within the block, MLflow's queries included.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Engine, Pool, event

_of_thread = threading.local()


class _Deadline:
    """The connections that one block uses. Sockets are duplicates: a number that was closed may soon be another's."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: dict[int, socket.socket] = {}
        self._late = False

    def left_s(self) -> float:
        return self._ends_at - time.monotonic()

    def watch(self, connection: psycopg.Connection[Any]) -> None:
        self.leave(connection)  # one that was lost does not say so, and another may be in its place
        with self._lock:
            self._sockets[id(connection)] = socket.socket(fileno=os.dup(connection.fileno()))
            if self._late:
                self._break_off()

    def leave(self, connection: psycopg.Connection[Any]) -> None:
        """The connection goes back to its pool, and is another's from now on."""
        with self._lock:
            if (left := self._sockets.pop(id(connection), None)) is not None:
                left.close()

    def expire(self) -> None:
        with self._lock:
            self._late = True
            self._break_off()

    def _break_off(self) -> None:
        for each in self._sockets.values():
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is lost already
                continue

    def close(self) -> None:
        with self._lock:
            while self._sockets:
                self._sockets.popitem()[1].close()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What this thread asks of databases in the block fails once so many seconds are over; where a connection has to be
    opened, two seconds later at most, which is the least that PostgreSQL's library waits."""
    _listen()
    outer, deadline = getattr(_of_thread, "deadline", None), _Deadline(seconds)
    timer = threading.Timer(seconds, deadline.expire)
    timer.daemon = True
    timer.start()
    _of_thread.deadline = deadline
    try:
        yield
    finally:
        _of_thread.deadline = outer
        timer.cancel()
        deadline.close()


@cache
def _listen() -> None:
    event.listen(Engine, "do_connect", _connecting)
    event.listen(Pool, "checkout", _taken)
    event.listen(Pool, "checkin", _returned)


def _connecting(dialect: Any, _record: object, _arguments: object, options: dict[str, Any]) -> None:
    deadline = getattr(_of_thread, "deadline", None)
    if deadline is None or dialect.driver != "psycopg":
        return
    if (left_s := deadline.left_s()) <= 0:
        raise psycopg.OperationalError("there is no time left to connect")
    options["connect_timeout"] = max(1, round(left_s))


def _taken(connection: Any, *_: object) -> None:
    deadline = getattr(_of_thread, "deadline", None)
    if deadline is not None and isinstance(connection, psycopg.Connection):
        deadline.watch(connection)


def _returned(connection: Any, *_: object) -> None:
    deadline = getattr(_of_thread, "deadline", None)
    if deadline is not None and isinstance(connection, psycopg.Connection):
        deadline.leave(connection)
