"""What supervisord started, and what that started in turn: told by the mark that supervisord leaves in the environment.

It holds for those too that are nobody's children any more, because the part that they belonged to was killed.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import psutil

from deployments.supervision.supervisor import server_url


def processes_of(home: Path) -> list[tuple[str, psutil.Process]]:
    """Processes of this home's supervisor, each with the name of its part; never this one itself."""
    found, url = [], server_url(home)
    for process in psutil.process_iter():
        environment = _environment(process)
        if environment.get("SUPERVISOR_SERVER_URL") == url and process.pid != os.getpid():
            found.append((environment.get("SUPERVISOR_PROCESS_NAME", ""), process))
    return found


def end(processes: Collection[psutil.Process], grace_s: float) -> None:
    """Asks processes to stop, and makes them after a while."""
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):  # it is not ours to look at, or has ended
        return {}
