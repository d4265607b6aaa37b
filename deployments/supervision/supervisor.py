"""Talking to supervisord: its XML-RPC interface over a Unix socket that only its owner can open."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport  # type: ignore[import-untyped]

from deployments.supervision.configuration import (
    change_configuration,
    configuration_path,
    log_path,
    socket_path,
)
from deployments.supervision.parts import Part
from infra import servers
from tasks.domain.errors import Retryable

RUNNING = "RUNNING"
STOPPED = frozenset({"STOPPED", "EXITED", "FATAL"})
"""States in which supervisord leaves a program alone, in its words."""


class State(NamedTuple):
    """What supervisord knows of a program: its state and, while it runs, the process; `started` is in Unix seconds."""

    name: str
    state: str
    pid: int | None
    started: float
    description: str


@dataclass(frozen=True)
class Supervisor:
    """The supervisord of one home, which runs."""

    home: Path

    def states(self) -> dict[str, State]:
        """The programs by name."""
        return {
            each["name"]: State(
                each["name"],
                each["statename"],
                each["pid"] or None,
                float(each["start"]),
                each["spawnerr"] or each["description"],
            )
            for each in self._call("getAllProcessInfo")
        }

    def start(self, names: Iterable[str]) -> None:
        """Has programs started, unless they run. Does not wait until they work."""
        for name in names:
            with _tolerated(Faults.ALREADY_STARTED):
                self._call("startProcess", name, False)

    def stop(self, names: Collection[str]) -> None:
        """Stops programs, all at once, and waits until they have ended. One that does not is killed in the end."""
        for name in names:
            with _tolerated(Faults.NOT_RUNNING):
                self._call("stopProcess", name, False)
        while any(state.state not in STOPPED for name, state in self.states().items() if name in names):
            time.sleep(0.1)

    def change(self, added: Collection[Part], removed: Collection[str]) -> None:
        """Takes programs in, which are then stopped, and others out, which are stopped first."""
        self.stop(removed)
        change_configuration(self.home, added, removed)
        self._call("reloadConfig")
        for name in removed:
            self._call("removeProcessGroup", name)
        for part in added:
            with _tolerated(Faults.ALREADY_ADDED):
                self._call("addProcessGroup", part.name)

    def shut_down(self) -> None:
        """Ends supervisord itself, and waits for it."""
        server = servers.running(self.home, servers.SUPERVISOR)
        self._call("shutdown")
        if server is not None and psutil.pid_exists(server.pid):
            psutil.wait_procs([psutil.Process(server.pid)], timeout=60)

    def pid(self) -> int:
        """Its process."""
        return int(self._call("getPID"))

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, server_url(self.home))
        # The address is that of the transport; the one here only satisfies the form.
        with ServerProxy("http://127.0.0.1", transport=transport) as rpc:
            return getattr(rpc, f"supervisor.{method}")(*arguments)


@contextmanager
def _tolerated(fault: int) -> Iterator[None]:
    try:
        yield
    except Fault as error:
        if error.faultCode != fault:
            raise


def server_url(home: Path) -> str:
    """Where it listens. It puts this into the environment of everything that it starts."""
    return f"unix://{socket_path(home)}"


def connected(home: Path) -> Supervisor | None:
    """The home's supervisor, if it runs. One without a record gets it: the command that started it was killed."""
    if not configuration_path(home).exists():
        return None
    supervisor = Supervisor(home)
    try:
        pid = supervisor.pid()
    except OSError:
        return None
    if servers.running(home, servers.SUPERVISOR) is None:
        servers.record(home, servers.SUPERVISOR, server_url(home), pid)
    return supervisor


def started(home: Path, environment: dict[str, str]) -> Supervisor:
    """Starts supervisord with the configuration that was written; it goes into the background by itself. Its programs
    inherit the environment. Raises `Retryable`."""
    done = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration_path(home))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    supervisor, deadline = Supervisor(home), time.monotonic() + 15
    while done.returncode == 0 and time.monotonic() < deadline:
        try:
            servers.record(home, servers.SUPERVISOR, server_url(home), supervisor.pid())
        except OSError:
            time.sleep(0.05)
            continue
        return supervisor
    raise Retryable(
        "supervisord did not start",
        found=f"{done.stdout}{done.stderr}".strip()[-600:],
        where=str(log_path(home, servers.SUPERVISOR)),
        hint="see that log",
    )
