"""Orchard under measurement: a platform of its own, the stages of one use case, and where their time went."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from deployments.onboarding import onboard
from deployments.platform import Platform, running_platform
from infra import postgres, servers
from infra.registry import initialise_registry
from infra.settings import load_settings
from infra.space import TenantSpace
from tasks.domain.names import Purpose
from tasks.domain.run import Run, Upload, UploadStatus
from tests.benchmarks import data
from tests.samples import witness


@dataclass
class Step:
    """One timed step of a benchmark. `cpu_s` is of this process, `server_cpu_s` of PostgreSQL and Prefect's server;
    `recorded_s` what the database's runs say; `parts` are Prefect's tasks: name → (wall seconds, how many)."""

    name: str
    seconds: float
    cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    recorded_s: float | None = None
    parts: dict[str, tuple[float, int]] = field(default_factory=dict)


@contextmanager
def platform(home: Path, workers: int) -> Iterator[Platform]:
    """PostgreSQL and Prefect's server in a home of their own, whatever the environment points at; both end with the
    block."""
    for name in [name for name in os.environ if name.startswith("ORCHARD_") or name == "PREFECT_API_URL"]:
        del os.environ[name]
    os.environ |= {"ORCHARD_HOME": str(home), "ORCHARD_WORKERS": str(workers), "PREFECT_LOGGING_LEVEL": "WARNING"}
    with running_platform(load_settings(), prefect=True) as running:
        for uri in running.registry_uris():
            initialise_registry(uri)
        onboard(running, data.tenant())
        yield running


class Course:
    """The stages of one use case, each timed."""

    def __init__(self, running: Platform, use_case: str) -> None:
        self.settings, self.cluster, self.use_case = running.settings, running.cluster, use_case
        self.space: TenantSpace = running.open_space(data.TENANT)
        self.steps: list[Step] = []
        self._tasks_of: list[tuple[Step, datetime]] = []
        self.run_id: int | None = None

    def ingest(self, name: str, purpose: Purpose, path: Path) -> Upload:
        """Admits a file and merges it."""
        from flows.ingestion import ingest

        upload = self.admit(f"{name}: admission", purpose, path)
        done: Upload = self._timed(f"{name}: ingestion", lambda: ingest(data.TENANT, upload.upload_id))
        if done.status is UploadStatus.REJECTED:
            raise RuntimeError(f"the upload was rejected: {done.error}")
        return done

    def admit(self, name: str, purpose: Purpose, path: Path) -> Upload:
        """Hashes, stores and records a file."""
        from flows.operations import admit

        upload, _ = self._timed(
            name, lambda: admit(self.space, self.use_case, purpose, path, witness(self.cluster)), flow=False
        )
        return upload

    def train(self, version: int | None, again: bool = False) -> Step:
        from flows.training import train

        self.run_id = self._timed("training", lambda: train(data.TENANT, self.use_case, version, again=again))
        return self.steps[-1]

    def promote(self) -> Step:
        from flows.promotion import promote

        self._timed("promotion", lambda: promote(data.TENANT, self.use_case, self.run_id))
        return self.steps[-1]

    def score(self, upload: Upload) -> Step:
        from flows.scoring import score

        self._timed("scoring", lambda: score(data.TENANT, self.use_case, upload.upload_id))
        return self.steps[-1]

    def pipeline(self, upload: Upload) -> Step:
        """All stages for one upload, as production runs them."""
        from flows.pipeline import pipeline

        self._timed("pipeline", lambda: pipeline(data.TENANT, upload.upload_id))
        return self.steps[-1]

    def runs(self, since: int = 0) -> list[Run]:
        """Oldest first."""
        return [run for run in reversed(self.space.records.runs(self.use_case)) if run.run_id > since]

    def _timed(self, name: str, work: Callable[[], Any], flow: bool = True) -> Any:
        from flows.runner import in_this_process

        before = {run.run_id for run in self.space.records.runs(self.use_case)}
        began = datetime.now().astimezone()
        wall, cpu, server_cpu = time.perf_counter(), time.process_time(), self._server_cpu()
        if flow:
            with in_this_process():
                result = work()
        else:
            result = work()
        step = Step(name, time.perf_counter() - wall, time.process_time() - cpu, self._server_cpu() - server_cpu)
        self.steps.append(step)
        if flow:
            self._tasks_of.append((step, began))
            new = [run for run in self.space.records.runs(self.use_case) if run.run_id not in before]
            step.recorded_s = sum(_seconds(run) for run in new) or None
        return result

    def _server_cpu(self) -> float:
        return sum(_cpu(pid) for pid in server_pids(self.settings.home))

    def ask_prefect(self) -> None:
        """Fills in the steps' parts. Prefect's server records task runs with a delay, so it is asked at the end."""
        deadline = time.monotonic() + 20
        while self._tasks_of:
            step, began = self._tasks_of[0]
            tasks = task_runs(began, step.seconds)
            if any(task.end_time is None for task in tasks) and time.monotonic() < deadline:
                time.sleep(0.5)  # nothing tells when the recorder is done
                continue
            step.parts = _parts(tasks)
            self._tasks_of.pop(0)


def server_pids(home: Path) -> list[int]:
    """The processes beside the run: PostgreSQL's and Prefect's."""
    address, prefect = postgres.address(home), servers.running(home, "prefect")
    return [found.pid for found in (address, prefect) if found is not None]


def task_runs(began: datetime, seconds: float) -> list[Any]:
    """Prefect's task runs that were started within these seconds."""
    from datetime import timedelta

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterStartTime
    from prefect.client.schemas.sorting import TaskRunSort

    window = TaskRunFilterStartTime(before_=began + timedelta(seconds=seconds), after_=began)
    found: list[Any] = []
    with get_client(sync_client=True) as client:
        while page := client.read_task_runs(
            task_run_filter=TaskRunFilter(start_time=window),
            sort=TaskRunSort.ID_DESC,
            limit=200,
            offset=len(found),
        ):
            found += page
    return found


def _parts(tasks: list[Any]) -> dict[str, tuple[float, int]]:
    """Wall seconds, from the first start to the last end, of tasks of one kind; in the order of their starts."""
    kinds: dict[str, list[Any]] = {}
    for task in sorted((task for task in tasks if task.end_time), key=lambda task: task.start_time):
        kinds.setdefault(re.sub(r"[ -][0-9a-f]+$", "", task.name), []).append(task)
    return {
        kind: ((max(t.end_time for t in group) - group[0].start_time).total_seconds(), len(group))
        for kind, group in kinds.items()
    }


def _seconds(run: Run) -> float:
    return (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0


def _cpu(pid: int) -> float:
    """CPU seconds of a process, of its children, and of those that have ended."""
    total = 0.0
    try:
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    except psutil.Error:
        return total
    return total
