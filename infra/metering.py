"""What the operating system has counted for this process and its threads, and the clocks of work in progress.

A process works for one tenant at a time (`Shift`). What it used before its first shift, to start and to import, that
shift takes over. Of a run, each batch has the CPU of the thread that did it; the run's rest is what the process used
from the run's beginning to its end, less its batches, so that threads of libraries and what a run does between batches
are in it.
"""

from __future__ import annotations

import resource
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


def process_cpu_s() -> float:
    """CPU seconds, user and system, of all threads of this process."""
    return time.process_time()


def ended_cpu_s() -> float:
    """CPU seconds of this process's children that have ended and were waited for, and of theirs."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def peak_mb() -> float:
    """The most resident memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True)
class Spent:
    """CPU and wall seconds."""

    cpu_s: float
    wall_s: float


@dataclass
class _Reading:
    cpu_s: float
    wall_s: float
    batches_cpu_s: float = 0.0

    def since(self, cpu_s: float) -> Spent:
        return Spent(max(0.0, cpu_s - self.cpu_s - self.batches_cpu_s), time.monotonic() - self.wall_s)


@dataclass
class Shift:
    """A process's work for one tenant: what it used so far is `cpu_s()`."""

    began_at_s: float
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    use_case: str = ""
    _runs: dict[int, _Reading] = field(default_factory=dict)
    _batches: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cpu_s(self) -> float:
        """CPU seconds since the shift began."""
        return max(0.0, process_cpu_s() - self.began_at_s)

    def begin_run(self, run_id: int, use_case: str) -> None:
        """From now on the process works on a run of this use case."""
        self.use_case = use_case
        with self._lock:
            self._runs[run_id] = _Reading(process_cpu_s(), time.monotonic())

    def begin_batch(self) -> None:
        """From now on this thread works on a batch."""
        self._batches.reading = _Reading(time.thread_time(), time.monotonic())

    def batch(self, run_id: int) -> Spent:
        """What this thread used since `begin_batch`."""
        spent = getattr(self._batches, "reading", _Reading(time.thread_time(), time.monotonic())).since(
            time.thread_time()
        )
        with self._lock:
            if (run := self._runs.get(run_id)) is not None:
                run.batches_cpu_s += spent.cpu_s
        return spent

    def rest_of_run(self, run_id: int) -> Spent:
        """What the process used since `begin_run`, less the run's batches."""
        with self._lock:
            reading = self._runs.get(run_id)
        return reading.since(process_cpu_s()) if reading is not None else Spent(0.0, 0.0)


_shift: Shift | None = None
_ended_at_s = 0.0
_shifts_cpu_s = 0.0
_booked_elsewhere_cpu_s = 0.0


@contextmanager
def booked_elsewhere() -> Iterator[None]:
    """Processes that this one started and that end within the block tell for themselves what they have used."""
    global _booked_elsewhere_cpu_s
    before = ended_cpu_s()
    try:
        yield
    finally:
        _booked_elsewhere_cpu_s += ended_cpu_s() - before


def shift() -> Shift:
    """The shift that this process is in; one that has not begun any begins its first."""
    global _shift
    if _shift is None:
        _shift = Shift(_ended_at_s)
    return _shift


def end_shift() -> None:
    """What the process uses from now on belongs to the next shift."""
    global _shift, _ended_at_s, _shifts_cpu_s
    now = process_cpu_s()
    _shifts_cpu_s += now - _shift.began_at_s if _shift is not None else 0.0
    _shift, _ended_at_s = None, now


def idle_cpu_s() -> float:
    """CPU seconds of this process, and of programs that it ran to their end, that belong to no shift."""
    own = process_cpu_s() + ended_cpu_s() - _booked_elsewhere_cpu_s
    return own - _shifts_cpu_s - (_shift.cpu_s() if _shift is not None else 0.0)
