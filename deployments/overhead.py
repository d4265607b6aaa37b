"""Reads what servers and workers on this machine have used, which belongs to no tenant.

Runs are not in it, nor what the API used for requests: those are their tenants'.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import psutil

from deployments.platform import MLFLOW_PRODUCTION, MLFLOW_TRAINING, PREFECT, supervised
from deployments.supervision.parts import API, POSTGRESQL, WORKER, is_own_worker
from deployments.supervision.processes import processes_of
from infra import postgres, servers
from infra.database.overhead import Reading
from infra.metering import idle_cpu_s, peak_mb
from infra.settings import Settings

TENANTS_WORKER = f"{WORKER}tenant"
"""The part of workers that serve one tenant's own pool: overhead outlives a tenant, whose name must not."""


def readings(settings: Settings) -> list[Reading]:
    """One per part that runs here, the API's apart: its processes tell for themselves."""
    home = settings.home
    parts: dict[str, list[psutil.Process]] = {}
    found: list[Reading | None] = []
    if supervised(settings):
        for part, process in processes_of(home):
            parts.setdefault(part or servers.SUPERVISOR, []).append(process)
    else:
        for name in (PREFECT, MLFLOW_TRAINING, MLFLOW_PRODUCTION):
            if (reading := server_reading(settings, name)) is not None:
                found.append(reading)
    if settings.database_url is None and (address := postgres.address(home)) is not None:
        parts[POSTGRESQL] = _tree(address.pid)  # its processes have no environment that could be read
    found += [_reading(part, processes) for part, processes in parts.items() if part != API]
    return [reading for reading in found if reading is not None]


def server_reading(settings: Settings, name: str) -> Reading | None:
    """Of a server that a command has started; None when it does not run."""
    server = servers.running(settings.home, name)
    return _reading(name, _tree(server.pid)) if server is not None else None


def command_reading() -> Reading:
    """What this process has used beside its work for tenants."""
    return own_reading("command", idle_cpu_s())


def own_reading(part: str, cpu_s: float) -> Reading:
    """What this process has used for no tenant."""
    me = psutil.Process()
    began = me.create_time()
    return Reading(f"{part} {me.pid} {began:.2f}", part, cpu_s, time.time() - began, peak_mb())


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _reading(part: str, processes: Sequence[psutil.Process]) -> Reading | None:
    """The processes' own time and that of children that have ended; of a worker's, not: those were runs."""
    worker = part.startswith(WORKER)
    counted = _without_runs(processes) if worker else processes
    total, peak, began = 0.0, 0.0, list[tuple[float, int]]()
    for process in counted:
        try:
            with process.oneshot():
                times = process.cpu_times()
                total += times.user + times.system + (0.0 if worker else times.children_user + times.children_system)
                peak += process.memory_info().rss / 2**20
                began.append((process.create_time(), process.pid))
        except psutil.Error:  # it has ended: its parent has its time
            continue
    if not began:
        return None
    since, pid = min(began)
    named = TENANTS_WORKER if is_own_worker(part) else part
    return Reading(f"{named} {pid} {since:.2f}", named, total, time.time() - since, peak)


def _without_runs(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Runs are forked from the server of `multiprocessing`, and so have its command line."""
    kept = []
    for process in processes:
        try:
            parent = process.parent()
            if not (_is_fork_server(process) and parent is not None and _is_fork_server(parent)):
                kept.append(process)
        except psutil.Error:
            continue
    return kept


def _is_fork_server(process: psutil.Process) -> bool:
    return any("multiprocessing.forkserver" in word for word in process.cmdline())
