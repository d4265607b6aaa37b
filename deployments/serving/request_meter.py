"""What online requests use, per tenant, use case and release: added up in memory, and booked every few seconds."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from deployments.overhead import own_reading, readings
from infra.database.cluster import connected_cluster
from infra.database.deadline import within
from infra.database.online_usage import OnlineUnit, Used, book_online
from infra.database.overhead import record_overhead
from infra.metering import process_cpu_s
from infra.settings import Settings
from tasks.domain.errors import OrchardError

logger = logging.getLogger(__name__)

EVERY_S = 10.0
"""A process that is killed loses what it used since it last booked: at most so long."""

SERVERS_EVERY_S = 60.0


class For(NamedTuple):
    """Whom a request was answered for, and with which release."""

    tenant: str
    use_case: str
    release: int


@dataclass
class Measured:
    """A request in progress: whoever answers it says how much came in and went out, and that it is none yet where
    somebody else will go on with it."""

    requests: int = 1
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class RequestMeter:
    """Counts the requests of this process. Its CPU beside them is overhead, and so is that of the other servers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._waiting: dict[For, Used] = {}
        self._requests_cpu_s = 0.0
        self._units: list[OnlineUnit] = []
        self._number = 0
        self._servers_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_booking, daemon=True, name="request-meter")

    def start(self) -> None:
        """Begins to book."""
        self._thread.start()

    def close(self) -> None:
        """Books what is left."""
        self._stop.set()
        self._thread.join(timeout=EVERY_S)

    @contextmanager
    def request(self, whom: For) -> Iterator[Measured]:
        """The CPU that this thread uses until the block ends, whether it is answered or refused, is the tenant's."""
        cpu_s, wall_s, measured = time.thread_time(), time.monotonic(), Measured()
        try:
            yield measured
        finally:
            spent = time.thread_time() - cpu_s
            with self._lock:
                used = self._waiting.setdefault(whom, Used())
                used.requests += measured.requests
                used.rows += measured.rows
                used.bytes_in += measured.bytes_in
                used.bytes_out += measured.bytes_out
                used.cpu_s += spent
                used.wall_s += time.monotonic() - wall_s
                self._requests_cpu_s += spent

    def _keep_booking(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._try_to_book()
        self._try_to_book()

    def _try_to_book(self) -> None:
        try:
            with within(EVERY_S):
                self.book()
        except OrchardError as error:  # nothing is lost: it is added to what comes next
            logger.warning("what requests used waits to be booked: %s", error)
        except Exception:  # a thread that ends would book nothing more
            logger.exception("what requests used could not be booked")

    def book(self) -> None:
        """Books what was used since the last time. What cannot be booked now keeps its name and is tried again: it is
        booked once, even where the database had taken it and could not say so."""
        with self._lock:
            tried = {For(each.tenant, each.use_case, each.release) for each in self._units}
            for whom in self._waiting.keys() - tried:
                self._units.append(self._unit(whom, self._waiting.pop(whom)))
            idle_cpu_s = process_cpu_s() - self._requests_cpu_s
        cluster = connected_cluster(self._settings)
        for booked in book_online(cluster, tuple(self._units)):
            self._units.remove(booked)
        own = [own_reading("api", idle_cpu_s)]
        if time.monotonic() - self._servers_at > SERVERS_EVERY_S:
            self._servers_at = time.monotonic()
            own += readings(self._settings)
        record_overhead(cluster, own)

    def _unit(self, whom: For, used: Used) -> OnlineUnit:
        self._number += 1
        return OnlineUnit(*whom, f"online/{self._process}/{self._number}", self._process, used)
