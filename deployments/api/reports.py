"""Entries of the audit that nobody waits for: they are added in a thread of their own."""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from contextlib import suppress
from typing import Any, NamedTuple

from infra.database.audit import Actor, Audit, Outcome
from infra.database.cluster import connected_cluster
from infra.settings import Settings
from tasks.domain.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

MAX_WAITING = 1_000
AGAIN_S = 5.0


class Report(NamedTuple):
    """An entry on its way."""

    action: str
    outcome: Outcome
    by: Actor
    details: dict[str, Any]
    once: str


class Reports:
    """Adds entries as soon as the database takes them. What cannot be added until the process ends, or is too much, is
    in the log as an error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[Report | None] = queue.Queue(MAX_WAITING)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, action: str, outcome: Outcome, by: Actor, **details: object) -> None:
        """Returns at once."""
        report = Report(action, outcome, by, details, uuid.uuid4().hex)
        try:
            self._waiting.put_nowait(report)
        except queue.Full:
            _lost(report)

    def close(self) -> None:
        """Takes no more; what waits is added now, or lost."""
        self._closing.set()
        with suppress(queue.Full):  # it is being emptied then
            self._waiting.put_nowait(None)
        self._thread.join(timeout=AGAIN_S)
        self._give_up()

    def _run(self) -> None:
        while (report := self._waiting.get()) is not None:
            while not self._added(report):
                if self._closing.wait(AGAIN_S):
                    _lost(report)
                    self._give_up()
                    return

    def _give_up(self) -> None:
        with suppress(queue.Empty):
            while True:
                if (report := self._waiting.get_nowait()) is not None:
                    _lost(report)

    def _added(self, report: Report) -> bool:
        action, outcome, by, details, once = report
        try:
            Audit(connected_cluster(self._settings)).record(action, outcome, by=by, once=once, **details)
        except DatabaseUnavailable as error:
            logger.warning("an entry of the audit waits: %s", error)
            return False
        except Exception:  # a thread that ends would add nothing more
            logger.exception("an entry of the audit could not be added")
            _lost(report)
        return True


def _lost(report: Report) -> None:
    logger.error("not in the audit: %s", report)
