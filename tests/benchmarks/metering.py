"""What metering costs: its CPU as a share of a training run's. `python -m tests.benchmarks.metering`.

Counted is what metering does in the run's process: reading it every few seconds, on a thread, and booking batches and
the run's rest, each by the CPU clock of the thread that does it. Beside that stands what its statements cost
PostgreSQL's backends meanwhile, by the kernel's own count of each (Linux only); commits of
batches are not metering's.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, event

from infra.metering import Shift
from tasks.domain.names import Purpose
from tests.benchmarks import data
from tests.benchmarks.stages import Course, Step, platform

LIMIT = 0.01
PARTS = {
    "flows.metering._tell": "readings of the process",
    "flows.metering._read": "the thread that reads, beside that",
    "infra.database.models.book_batch": "booking of batches",
    "infra.database.runs.book_rest": "booking of the rest",
}
CLOCKS = ("begin_run", "begin_batch")


@dataclass
class _Call:
    """A part at work: what parts inside it spent, and backends as they were when it first used them."""

    inside_s: float = 0.0
    backends: dict[int, float] = field(default_factory=dict)


class Watch:
    """CPU seconds of what is metering's, by part: in this process, and in the backends that its statements ran in."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.cpu_s: Counter[str] = Counter()
        self.backend_cpu_s: Counter[str] = Counter()
        self._thread = threading.local()
        self._lock = threading.Lock()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watches until the block ends."""
        listeners = [(Engine, "connect", self._connected), (Engine, "before_cursor_execute", self._asked)]
        with ExitStack() as stack:
            for place, part in PARTS.items():
                module, name = place.rsplit(".", 1)
                work = getattr(import_module(module), name)
                stack.enter_context(patch(place, self._watched(work, part)))
            for name in CLOCKS:
                stack.enter_context(patch.object(Shift, name, self._watched(getattr(Shift, name), "its clocks")))
            for target, name, listener in listeners:
                event.listen(target, name, listener)
                stack.callback(event.remove, target, name, listener)
            yield

    def _watched(self, work: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(work)
        def watched(*args: Any, **kwargs: Any) -> Any:
            around, self._thread.call = self._call(), (call := _Call())
            began = time.thread_time()
            try:
                return work(*args, **kwargs)
            finally:
                spent = time.thread_time() - began
                self._thread.call = around
                if around is not None:
                    around.inside_s += spent
                backend_cpu_s = sum(_backend_cpu_s(pid) - before for pid, before in call.backends.items())
                with self._lock:
                    self.calls[part] += 1
                    self.cpu_s[part] += spent - call.inside_s
                    self.backend_cpu_s[part] += backend_cpu_s

        return watched

    def _call(self) -> _Call | None:
        """The innermost part that this thread is in."""
        return getattr(self._thread, "call", None)

    def _connected(self, connection: Any, _: Any) -> None:
        if (call := self._call()) is not None:
            call.backends[connection.info.backend_pid] = 0.0  # it was made for metering

    def _asked(self, connection: Any, *_: Any) -> None:
        if (call := self._call()) is not None:
            pid = connection.connection.dbapi_connection.info.backend_pid
            call.backends.setdefault(pid, _backend_cpu_s(pid))


def _backend_cpu_s(pid: int) -> float:
    """CPU seconds of a process, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def trained(course: Course, path: Path) -> Step:
    """The training run of a history file."""
    upload = course.ingest("history", Purpose.HISTORY, path)
    return course.train(upload.dataset_version)


def run(size: data.Size, home: Path, workers: int, console: Console) -> float:
    """Prints what metering took of a training run, for each choice of estimators; returns the largest share."""
    history, small = home / "history.parquet", home / "small.parquet"
    home.mkdir(parents=True, exist_ok=True)
    data.write_history(history, size)
    data.write_history(small, data.Size(4, size.rows, size.seed))
    shares = []
    with platform(home / "orchard", workers) as running:
        from flows.metering import metered  # flows read the environment when they are imported

        for choice, warm_up in zip((data.ONE, data.FULL), data.WARM_UP, strict=True):
            trained(Course(running, warm_up), small)
            course, watch = Course(running, choice), Watch()
            upload = course.ingest("history", Purpose.HISTORY, history)
            with watch.on(), metered(course.space):
                step = course.train(upload.dataset_version)
            shares.append(_show(console, f"{choice}: {size.partitions:,} × {size.rows:,}", step, watch))
    return max(shares)


def _show(console: Console, title: str, step: Step, watch: Watch) -> float:
    table = Table("", "calls", "CPU seconds", "share of the run", "PostgreSQL's CPU seconds", title=title)
    for part in watch.cpu_s:
        share = f"{watch.cpu_s[part] / step.cpu_s:.3%}"
        table.add_row(
            part, str(watch.calls[part]), f"{watch.cpu_s[part]:.3f}", share, f"{watch.backend_cpu_s[part]:.3f}"
        )
    metering, backends = watch.cpu_s.total(), watch.backend_cpu_s.total()
    table.add_section()
    table.add_row("metering", "", f"{metering:.3f}", f"{metering / step.cpu_s:.3%}", f"{backends:.3f}")
    table.add_row("the training run", "", f"{step.cpu_s:.3f}", "100%", f"{step.server_cpu_s:.3f} with Prefect's server")
    console.print(table)
    share = metering / step.cpu_s
    both = (metering + backends) / (step.cpu_s + backends)
    verdict = "OK" if share <= LIMIT else "too much"
    console.print(
        f"{share:.2%} of the run's CPU (goal: at most {LIMIT:.0%}): {verdict}; with the backends {both:.2%}\n"
    )
    return share


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-metering", description=__doc__)
    parser.add_argument("--partitions", type=int, default=300)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a log has no width of its own
    with tempfile.TemporaryDirectory(prefix="orchard-metering-") as folder:
        share = run(data.Size(options.partitions, options.rows), Path(folder), options.workers, console)
    if share > LIMIT:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
