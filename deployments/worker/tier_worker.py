"""A worker that starts a run in about a second.

It is Prefect's process worker but for how a run's process comes about: it is forked from a server process that has the
libraries loaded (`multiprocessing`'s forkserver), so each run has a process of its own without importing for seconds. A
stock `prefect worker start --pool tier-premium` does the same work, later.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import warnings
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from infra.turns import give_way
from tasks.domain.errors import OrchardError

PRELOADED = [
    "deployments.worker.tier_worker", "deltalake", "great_expectations", "great_expectations.expectations", "lightgbm",
    "mlflow.pyfunc", "mlflow.tracking", "pandas", "prefect.engine", "prefect.flow_engine", "prefect.task_engine",
    "prefect.task_runners", "pyarrow.dataset", "pyarrow.parquet", "sklearn.linear_model", "sqlmodel",
    "infra.database.operator", "infra.space", "infra.validation", "tasks.training.steps", "tasks.ingestion.steps",
    "tasks.promotion.steps", "tasks.scoring.steps", "tasks.monitoring.steps", "prefect.events.clients",
    "matplotlib.figure", "matplotlib.backends.backend_agg",
]  # fmt: skip
"""Modules without threads or connections of their own. Not flows: those read the run's environment when imported."""

GRACE_S = 30


class TierWorker(ProcessWorker):
    """Runs flows of one work pool, each in a forked process."""

    @classmethod
    def __dispatch_key__(cls) -> str:
        """Its place in Prefect's registry of worker types; `process`, which its pools are of, is taken there."""
        return "orchard"

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Starts the run's process and waits for its end."""
        environment = {name: value for name, value in configuration.env.items() if value is not None}
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=run_engine, args=(str(flow_run.id), environment), name=f"run {flow_run.id}")
        process.start()
        if task_status is not None and process.pid is not None:
            task_status.started(process.pid)
        await anyio.to_thread.run_sync(process.join, abandon_on_cancel=True)
        return ProcessWorkerResult(status_code=process.exitcode or 0, identifier=str(process.pid))

    async def kill_infrastructure(
        self,
        infrastructure_pid: str,
        configuration: Any,  # noqa: ARG002  # Prefect's signature
        grace_seconds: int = GRACE_S,
    ) -> None:
        """Ends a cancelled run: it is asked to stop, and made to after a while."""
        pid = int(infrastructure_pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
                for _ in range(grace_seconds * 5):
                    await anyio.sleep(0.2)
                    os.kill(pid, 0)
            except ProcessLookupError:
                return


def run_engine(flow_run_id: str, environment: dict[str, str]) -> None:
    """What the forked process does: becomes Prefect's engine for this run."""
    give_way()  # where runs share a machine with the API and the servers, those are answered first
    os.environ.update(environment)
    os.environ["PREFECT__FLOW_RUN_ID"] = flow_run_id
    if memory_mb := environment.get("ORCHARD_MEMORY_MB"):
        _limit_memory(int(memory_mb) * 2**20)
    from flows.runner import without_heartbeats  # not before: flows read the run's environment when they are imported

    sys.argv = ["prefect.engine", flow_run_id]
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # it is preloaded, and meant to be
    try:
        with without_heartbeats():
            runpy.run_module("prefect.engine", run_name="__main__")
    finally:
        _tell_overhead()


def _tell_overhead() -> None:
    """What this process has used for no tenant: all of it where the flow was the platform's own, such as dispatch."""
    from deployments.overhead import own_reading
    from infra.database.cluster import connected_cluster
    from infra.database.overhead import record_overhead
    from infra.metering import idle_cpu_s
    from infra.settings import load_settings

    with suppress(OrchardError):  # the work is done: a meter must not make it fail
        record_overhead(connected_cluster(load_settings()), [own_reading("runs", idle_cpu_s())])


def _limit_memory(size_bytes: int) -> None:
    """A run that wants more gets a MemoryError, and not the whole machine's memory. What is mapped from files or shared
    with the process that it was forked from does not count."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main(pool: str) -> None:
    """Works for one pool until it is told to stop."""
    from infra.settings import load_settings

    os.chdir(_folder(load_settings().home))
    forkserver.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()  # now, and not when the first run comes: it imports for seconds
    worker = TierWorker(work_pool_name=pool, name=f"{pool} on {os.uname().nodename}", create_pool_if_not_found=False)
    anyio.run(worker.start)


def _folder(home: Path) -> Path:
    """A folder to be in that holds nothing that could be imported."""
    folder = home / "run" / "worker"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
