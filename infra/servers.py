"""Servers that Orchard starts beside itself: how each is run, and those that run.

A `Program` says how a server is run; it is the same whether a command starts it on demand or a supervisor does. A
running server is recorded under `home/run/{name}.json`, so that a later command finds it and can stop it. Only a
process with the recorded id *and* start time is ever signalled.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil

from tasks.domain.errors import Retryable

SUPERVISOR = "supervisord"
"""Name of the record of the supervisor; while it lives, servers are its to start."""

SOCKET_PATH_LIMIT = 103  # bytes, without the closing zero, on the strictest system (macOS; Linux has 107)
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean every interface, and where a client on this machine finds who listens on them."""


@dataclass(frozen=True)
class Program:
    """How a server is run. `url` is where clients find it; a GET of `ready` succeeds once it works.

    Secrets are in the environment and never in the command, which every user of the machine can read.
    """

    name: str
    command: tuple[str, ...]
    url: str
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Server:
    """A running server; `started` is the process's start time as the system tells it, `birth` the same in a way that no
    change of the clock moves, where the system has one."""

    name: str
    url: str
    pid: int
    started: float
    ready: str = ""
    birth: str = ""


def prefect_program(home: Path, host: str, port: int, database_url: str, auth: str) -> Program:
    """Prefect's server with its UI, behind a login. It keeps its state in PostgreSQL; the batch sizes let it record the
    states of a 200-task map by the time the flow ends (by default it records about 30 a second)."""
    origin = origin_of(host, port)
    url = f"{origin}/api"
    return Program(
        "prefect",
        (sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)),
        url=url,
        ready=f"{url}/ready",
        environment={
            "PREFECT_HOME": str((home / "prefect").resolve()),
            "PREFECT_API_URL": url,
            "PREFECT_API_AUTH_STRING": auth,
            # A browser elsewhere knows the server by a name that is not known here, so its pages then say "where you
            # have me from".
            "PREFECT_UI_API_URL": "/api" if host in EVERYWHERE else url,
            "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
            "PREFECT_SERVER_API_AUTH_STRING": auth,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
            "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
            "DO_NOT_TRACK": "1",
        },
    )


def mlflow_program(name: str, port: int, backend_uri: str, artifacts_url: str) -> Program:
    """MLflow's server for one registry. It has no login, so it stays on loopback; one worker and no job executor keep
    it at two processes."""
    url = origin_of("127.0.0.1", port)
    return Program(
        name,
        (sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--default-artifact-root", artifacts_url),
        url=url,
        ready=f"{url}/health",
        environment={
            "MLFLOW_BACKEND_STORE_URI": backend_uri,
            "MLFLOW_REGISTRY_STORE_URI": backend_uri,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    )  # fmt: skip


def running(home: Path, name: str) -> Server | None:
    """The recorded server of that name, if its process still lives."""
    try:
        server = Server(**json.loads(_record(home, name).read_text()))
        process = psutil.Process(server.pid)
        same = server.birth == _birth(process) if server.birth else process.create_time() == server.started
        alive = same and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, psutil.NoSuchProcess, ValueError, TypeError):
        return None
    return server if alive else None


def record(home: Path, name: str, url: str, pid: int, ready: str = "") -> Server:
    """Records that a process is the server of that name. The record is there whole or not at all."""
    process = psutil.Process(pid)
    server = Server(name, url, pid, process.create_time(), ready, _birth(process))
    path = _record(home, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{name}-", delete=False) as file:
        file.write(json.dumps(asdict(server)))
    Path(file.name).replace(path)
    return server


def start(home: Path, program: Program, *, timeout_s: float = 90) -> Server:
    """Starts a server and waits until it is ready. Its output goes to `home/logs/{name}.log`.

    Raises `Retryable` with the end of the log when it does not come up.
    """
    log = home / "logs" / f"{program.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            program.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **program.environment},
            start_new_session=True,  # a Ctrl-C at the terminal is for the command, not for its servers
        )
    server = record(home, program.name, program.url, process.pid, program.ready)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if answers(program.ready):
            return server
        time.sleep(0.2)  # polling a process that has no other way to tell that it is ready
    stop(home, program.name)
    raise Retryable(
        f"the {program.name} server did not come up",
        expected=f"an answer at {program.ready} within {timeout_s:.0f} s",
        found=log.read_text(errors="replace")[-600:],
        where=str(log),
        hint="see the log; is the port taken?",
    )


def become(home: Path, program: Program) -> NoReturn:
    """Turns this process into the server, for a supervisor that watches over it."""
    record(home, program.name, program.url, os.getpid(), program.ready)  # id and start time stay the same
    os.execvpe(program.command[0], program.command, {**os.environ, **program.environment})


def awaited(home: Path, name: str, timeout_s: float = 60) -> Server:
    """The server of that name, once it is ready: a supervisor starts it, perhaps after a crash. Raises `Retryable`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        server = running(home, name)
        if server is not None and answers(server.ready or server.url):
            return server
        time.sleep(0.2)
    raise Retryable(
        f"the {name} server does not answer, and its supervisor has not brought it back",
        expected=f"an answer within {timeout_s:.0f} s",
        where=str(home / "logs" / f"{name}.log"),
        hint=f"see `orchard status` and `orchard logs {name}`",
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
    except (urllib.error.URLError, OSError, ValueError):  # the last: that is no URL
        return False


def origin_of(host: str, port: int) -> str:
    """`http://…` of who listens there, as a client on this machine sees it."""
    name = EVERYWHERE.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def free_port(wanted: int, host: str = "127.0.0.1", taken: Collection[int] = ()) -> int:
    """The wanted port at that address, or the next one above it that is free and not spoken for."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = min(wanted + 199, 65535)
    for port in range(wanted, last + 1):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                if port not in taken:
                    probe.bind((host, port))
                    return port
            except OSError:
                continue
    raise Retryable(f"no free port between {wanted} and {last}", where=host, hint="is that an address of this machine?")


def socket_folder(folder: Path, longest_name: str, owners: Collection[int] = ()) -> Path:
    """The folder, or, where it is too deep for a socket of that name, one of its own in the temporary folder.

    Raises `Retryable` when somebody other than us or the owners has made that one.
    """
    if len(os.fsencode(folder / longest_name)) <= SOCKET_PATH_LIMIT:
        return folder
    name = f"orchard-{os.geteuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    short = min((Path(tempfile.gettempdir()) / name, Path("/tmp") / name), key=lambda path: len(str(path)))
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    # The temporary folder is everybody's: whoever made this one could put a server of theirs in our place.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), *owners}:
        raise Retryable("the folder for a socket belongs to somebody else", where=str(short), hint="remove it")
    short.chmod(0o700)
    return short


def _birth(process: psutil.Process) -> str:
    """Which boot of the machine a process belongs to, and how many seconds after it the process began. Empty where the
    system has no such id; there, start times stay as they were when the clock is set."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot} {process.create_time() - psutil.boot_time():.2f}"


def _record(home: Path, name: str) -> Path:
    return home / "run" / f"{name}.json"
