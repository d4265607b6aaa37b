"""`python -m tests.faults.zygote`: a process with all imports done that forks one child per run.

The imports take some five seconds; a fork takes milliseconds. Nothing that starts threads is used before the fork. Asks
and answers are lines of JSON on stdin and stdout; the test's side is `Zygote`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.story import BATCH_ROWS, BUCKET_ROWS, USE_CASE, Chapter

PRELOADED = (
    "deltalake", "great_expectations.expectations", "lightgbm", "matplotlib.pyplot", "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store", "psycopg",
    "sklearn.linear_model", "flows.operations", "flows.pipeline", "infra.space", "tests.faults.effects",
    "deployments.leaving.erase",
)  # fmt: skip

BUSY = 75
"""Exit code of a run that found another one at work."""


class Child:
    """A run in a process of its own."""

    def __init__(self, zygote: Zygote, pid: int, trace: Path) -> None:
        self._zygote, self.pid, self.trace = zygote, pid, trace
        self._code: int | None = None
        self.cpu_s = 0.0  # as the system tells it when the child has ended

    def wait(self, timeout_s: float = 120) -> int | None:
        """Its exit code, as `subprocess` gives it; None while it still runs."""
        if self._code is None:
            answer = self._zygote.ask(do="wait", pid=self.pid, timeout_s=timeout_s)
            self._code, self.cpu_s = answer["code"], answer["cpu_s"]
        return self._code

    def kill(self) -> bool:
        """Kills it, unless it has ended; whether it was struck."""
        if self.wait(0) is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def effects(self) -> list[str]:
        """What it has done so far."""
        return self.trace.read_text().splitlines() if self.trace.exists() else []


class Zygote:
    """The test's side. Its children see the given environment; what they print goes to `log`."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.log, self._folder, self._count = folder / "children.log", folder, 0
        with self.log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.zygote"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                cwd=Path(__file__).parents[2],
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """One question, one answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or b'{"error": "the zygote is gone"}')
        assert "error" not in answer, self.last_words()
        return answer

    def start(
        self,
        tenant: str,
        chapters: Sequence[Chapter],
        *,
        stop_at: str | None = None,
        number: int = signal.SIGKILL,
        workers: int = 1,
        erase: bool = False,
    ) -> Child:
        """A child that takes these uploads in, or erases the tenant; after the effect `stop_at` it sends itself the
        signal."""
        self._count += 1
        trace = self._folder / f"trace-{self._count}"
        answer = self.ask(
            do="start",
            tenant=tenant,
            uploads=[(chapter.purpose.value, str(chapter.path)) for chapter in chapters],
            trace=str(trace),
            stop_at=stop_at,
            number=int(number),
            workers=workers,
            erase=erase,
        )
        return Child(self, answer["pid"], trace)

    def close(self) -> None:
        """Ends it and what it started."""
        self._process.communicate(timeout=60)  # an interpreter with so much in it takes its time to end

    def last_words(self) -> str:
        """The end of what children have printed."""
        return self.log.read_text(errors="replace")[-4000:]


class Request(NamedTuple):
    """What a child is to do."""

    tenant: str
    uploads: list[tuple[str, str]]
    trace: str
    stop_at: str | None
    number: int
    workers: int
    erase: bool


def main() -> None:
    """Forks and waits, as asked, until nobody asks any more."""
    _preload()
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if request.pop("do") == "start":
            pid = os.fork()
            if pid == 0:
                _child(Request(**request))
            children.add(pid)
            answer: dict[str, Any] = {"pid": pid}
        else:
            code, cpu_s = _wait(request["pid"], request["timeout_s"])
            answer = {"code": code, "cpu_s": cpu_s}
            if answer["code"] is not None:
                children.discard(request["pid"])
        print(json.dumps(answer), flush=True)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _wait(pid: int, timeout_s: float) -> tuple[int | None, float]:
    deadline = time.monotonic() + timeout_s
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() >= deadline:
            return None, 0.0
        time.sleep(0.005)  # waitpid knows no timeout


def _child(request: Request) -> None:
    """Never returns: what the parent has open must not be closed twice."""
    os.dup2(2, 1)  # stdout is for answers
    code = 1
    try:
        code = _run(request)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(request: Request) -> int:
    from flows.auditing import witness
    from flows.operations import admit
    from flows.pipeline import pipeline
    from flows.runner import in_this_process, threads
    from flows.scoring import score
    from flows.space import open_space
    from flows.training import train
    from tasks.domain.errors import Busy
    from tasks.domain.names import Purpose
    from tests.faults.effects import observe

    if request.erase:
        return _erase(request)
    os.environ["ORCHARD_WORKERS"] = str(request.workers)
    train.task_runner = score.task_runner = threads()
    observe(Path(request.trace), request.stop_at, request.number)
    space, told = open_space(request.tenant), witness("test")
    try:
        for purpose, path in request.uploads:
            upload, _ = admit(space, USE_CASE, Purpose(purpose), Path(path), told)
            with in_this_process():
                pipeline(space.tenant.id, upload.upload_id)
    except Busy:
        return BUSY
    return 0


def _erase(request: Request) -> int:
    from deployments.leaving.erase import erase
    from deployments.platform import running_platform
    from infra.database.audit import Actor
    from infra.settings import load_settings
    from tasks.domain.errors import Busy
    from tests.faults.effects import observe_erasure

    observe_erasure(Path(request.trace), request.stop_at, request.number)
    try:
        with running_platform(load_settings(), prefect=True) as platform:
            erase(platform, request.tenant, Actor(who="operator:test", origin="test"))
    except Busy:
        return BUSY
    return 0


def _preload() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    # The sizes from which work is split are made for millions of rows; everything else is as it always is.
    for module, constant, small in (
        ("tasks.batches", "MIN_ROWS", BATCH_ROWS),
        ("infra.lake.keys", "ROWS_PER_BUCKET", BUCKET_ROWS),
    ):
        assert getattr(sys.modules[module], constant) > small
        setattr(sys.modules[module], constant, small)


if __name__ == "__main__":
    main()
