"""Servers that Orchard starts beside itself: Prefect and MLflow, each a child process on loopback.

A server is recorded under `home/run/{name}.json`, so that a later command finds it and can stop it. Only a process with
the recorded id *and* start time is ever signalled.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tasks.domain.errors import Retryable


@dataclass(frozen=True)
class Server:
    """A running child: `url` is where it answers, `started` the process's start time as the system tells it."""

    name: str
    url: str
    pid: int
    started: float


def running(home: Path, name: str) -> Server | None:
    """The recorded server of that name, if its process still lives."""
    try:
        server = Server(**json.loads(_record(home, name).read_text()))
        alive = psutil.Process(server.pid).create_time() == server.started
    except (FileNotFoundError, psutil.NoSuchProcess, ValueError):
        return None
    return server if alive else None


def start(
    home: Path,
    name: str,
    command: list[str],
    *,
    url: str,
    ready: str,
    environment: Mapping[str, str],
    timeout_s: float = 90,
) -> Server:
    """Starts a server and waits until `ready` answers. Its output goes to `home/logs/{name}.log`.

    Raises `Retryable` with the end of the log when it does not come up.
    """
    log = home / "logs" / f"{name}.log"
    for folder in (log.parent, _record(home, name).parent):
        folder.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,  # a Ctrl-C at the terminal is for the command, not for its servers
        )
    server = Server(name, url, process.pid, psutil.Process(process.pid).create_time())
    _record(home, name).write_text(json.dumps(asdict(server)))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if answers(ready):
            return server
        time.sleep(0.2)  # polling a process that has no other way to tell that it is ready
    stop(home, name)
    raise Retryable(
        f"the {name} server did not come up",
        expected=f"an answer at {ready} within {timeout_s:.0f} s",
        found=log.read_text(errors="replace")[-600:],
        where=str(log),
        hint="see the log; is the port taken?",
    )


def stop(home: Path, name: str, timeout_s: float = 20) -> bool:
    """Stops the recorded server and its children; False when there was none."""
    server = running(home, name)
    _record(home, name).unlink(missing_ok=True)
    if server is None:
        return False
    process = psutil.Process(server.pid)
    family = [process, *process.children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=timeout_s)
    for straggler in alive:
        straggler.kill()
    return True


def answers(url: str) -> bool:
    """Whether a GET of the URL succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port(wanted: int) -> int:
    """The wanted port on loopback, or the next free one above it."""
    for port in range(wanted, wanted + 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Retryable(f"no free port between {wanted} and {wanted + 199}")


def start_prefect(home: Path, port: int, database_url: str) -> Server:
    """Prefect's server with its UI. It keeps its state in PostgreSQL; the batch sizes let it record the states of a
    200-task map by the time the flow ends (by default it records about 30 a second)."""
    port = free_port(port)
    url = f"http://127.0.0.1:{port}/api"
    return start(
        home,
        "prefect",
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        url=url,
        ready=f"{url}/ready",
        environment={
            "PREFECT_HOME": str((home / "prefect").resolve()),
            "PREFECT_API_URL": url,
            "PREFECT_UI_API_URL": url,
            "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
            "DO_NOT_TRACK": "1",
        },
    )


def start_mlflow(home: Path, port: int, name: str, backend_uri: str, artifacts_url: str) -> Server:
    """MLflow's server for one registry; one worker and no job executor keep it at two processes."""
    port = free_port(port)
    url = f"http://127.0.0.1:{port}"
    return start(
        home,
        name,
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--default-artifact-root", artifacts_url],
        url=url,
        ready=f"{url}/health",
        environment={
            # in the environment rather than in the command line, where every user of the machine could read the
            # password
            "MLFLOW_BACKEND_STORE_URI": backend_uri,
            "MLFLOW_REGISTRY_STORE_URI": backend_uri,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )  # fmt: skip


def _record(home: Path, name: str) -> Path:
    return home / "run" / f"{name}.json"
