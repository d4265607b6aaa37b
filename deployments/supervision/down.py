"""`orchard down`: everything of this home stops, in order, and nothing of it stays."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployments.platform import Report, stop_platform
from deployments.supervision.configuration import configuration_path, socket_path
from deployments.supervision.parts import API, Stage, stage_of
from deployments.supervision.processes import end, processes_of
from deployments.supervision.supervisor import STOPPED, connected
from infra import servers
from infra.settings import Settings

RUN_GRACE_S = 30
"""So long a run may take to hand back its work and to say how it ended."""


def down(settings: Settings, report: Report = lambda _: None) -> list[str]:
    """Stops the supervised platform, and whatever commands left running; returns the names of what ran."""
    with alone(settings.home, report):
        return stop_everything(settings, report)


def stop_everything(settings: Settings, report: Report) -> list[str]:
    """What `down` does. The workers go first, and their runs: they need the servers to say how they ended."""
    home = settings.home
    supervisor = connected(home)
    states = supervisor.states() if supervisor is not None else {}
    stopped = [name for name, state in states.items() if state.state not in STOPPED]
    for stage in sorted(Stage, reverse=True):
        names = {name for name in states if stage_of(name) is stage}
        if supervisor is not None and names:
            report(f"stopping {', '.join(sorted(names))}")
            supervisor.stop(names)
        if stage is Stage.WORK:
            end([each for part, each in processes_of(home) if stage_of(part) is Stage.WORK], RUN_GRACE_S)
    if supervisor is not None:
        supervisor.shut_down()
    stopped += stop_platform(settings)  # what is not supervised, or outlived its supervisor
    end([each for _, each in processes_of(home)], RUN_GRACE_S)
    for name in (*states, API, servers.SUPERVISOR):
        servers.stop(home, name)  # drops its record
    for path in (configuration_path(home), socket_path(home), home / "run" / f"{servers.SUPERVISOR}.pid"):
        path.unlink(missing_ok=True)
    if (folder := socket_path(home).parent) != home / "run":
        with suppress(OSError):  # a socket of somebody's is still in it
            folder.rmdir()
    return stopped


@contextmanager
def alone(home: Path, report: Report) -> Iterator[None]:
    """One `up` or `down` of a home at a time; the lock goes with the process, however it ends."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "platform.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another `orchard up` or `orchard down`")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
