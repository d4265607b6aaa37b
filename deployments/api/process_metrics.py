"""Figures of all processes of one API in one scrape, whichever of them answers it.

Each process writes its figures down every second. One that answers a scrape writes its own before it adds those of the
others, so that the next scrape, whoever answers it, never sees less than this one. Each has the label `process`: the
number of a place that a process takes when it starts and that is free again once it ends, however it ends. A successor
begins anew from zero under the same label, which Prometheus understands.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

EVERY_S = 1.0
LABEL = "process"


class ProcessFigures(Collector):
    """The figures of `own`, and of the same registry in each other process that shares the folder."""

    def __init__(self, folder: Path, own: CollectorRegistry) -> None:
        self._folder, self._own = folder, own
        self._place: int | None = None
        self._lock_file = -1
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, daemon=True, name="process-figures")

    def start(self) -> None:
        """Takes a place, and begins to write."""
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while (lock_file := _locked(self._folder / f"{number}.lock")) is None:
            number += 1
        self._place, self._lock_file = number, lock_file
        self._write()
        self._thread.start()

    def close(self) -> None:
        """Frees the place."""
        self._stop.set()
        if self._place is not None:
            self._thread.join(EVERY_S)
            os.close(self._lock_file)
            self._place = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when it is scraped."""
        return []

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for place, text in sorted(self._texts().items()):
            for family in text_string_to_metric_families(text):
                known = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    known.samples.append(sample._replace(labels={**sample.labels, LABEL: str(place)}))
        return found.values()

    def _texts(self) -> dict[int, str]:
        own = {} if self._place is None else {self._place: self._write()}
        return dict(self._others()) | own

    def _others(self) -> Iterator[tuple[int, str]]:
        for path in self._folder.glob("*.lock"):
            if int(path.stem) == self._place:
                continue
            # Shared: others that look at the same time must not take this look for whoever had the place.
            if (free := _locked(path, fcntl.LOCK_SH)) is not None:  # that one has ended
                os.close(free)
                continue
            try:
                yield int(path.stem), path.with_suffix(".prom").read_text()
            except FileNotFoundError:
                continue

    def _keep_writing(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self._write()
            except Exception:  # a thread that ends would write nothing more
                logger.exception("figures are not written")

    def _write(self) -> str:
        """Writes the figures as they are now; what was written."""
        path = self._folder / f"{self._place}.prom"
        half = path.with_suffix(".new")
        with self._writing:
            text = generate_latest(self._own).decode()
            try:
                half.write_text(text)
                half.replace(path)
            except OSError as error:  # a full disk; the next second tries again
                logger.warning("figures are not written: %s", error)
        return text


def _locked(path: Path, how: int = fcntl.LOCK_EX) -> int | None:
    """The lock's file number; None while another process has it."""
    number = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(number, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        return None
    return number
