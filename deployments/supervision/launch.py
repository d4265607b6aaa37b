"""Becomes a server that supervisord watches over: `python -m deployments.supervision.launch prefect 4200`.

What a server needs to know, passwords among it, goes from here to its environment, so it is in no file and on no
command line. The process records itself before it becomes the server, so that commands find it.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from deployments.platform import PREFECT, Platform
from deployments.supervision.parts import API, POSTGRESQL
from deployments.supervision.processes import end, processes_of
from infra import postgres, servers
from infra.database.cluster import connected_cluster
from infra.settings import Settings, load_settings
from tasks.domain.errors import OrchardError

API_READY = "/readyz"
LEFTOVER_GRACE_S = 5


def launch(settings: Settings, name: str, port: int) -> NoReturn:
    """Turns this process into the server of that name. Raises `Retryable` while what it needs is not there."""
    if name == POSTGRESQL:
        password = settings.service_password(postgres.ADMIN)
        postgres.become(settings.home, password, settings.postgres_port)
    # Where the server was killed, children of it may have outlived it, and hold its port.
    end([process for part, process in processes_of(settings.home) if part == name], LEFTOVER_GRACE_S)
    servers.become(settings.home, _program(settings, name, port))


def _program(settings: Settings, name: str, port: int) -> servers.Program:
    if name == API:
        return api_program(settings, port)
    platform = Platform(settings, connected_cluster(settings))
    return platform.prefect_program(port) if name == PREFECT else platform.mlflow_program(name, port)


def api_program(settings: Settings, port: int) -> servers.Program:
    """Orchard's own HTTP API."""
    url = servers.origin_of(settings.host, port)
    return servers.Program(
        API,
        (sys.executable, "-m", "deployments.api"),
        url=url,
        ready=f"{url}{API_READY}",
        environment={"ORCHARD_API_PORT": str(port)},
    )


if __name__ == "__main__":
    try:
        launch(load_settings(), sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    except OrchardError as error:
        sys.exit(f"{sys.argv[1]} cannot start: {error}")  # supervisord tries again, a little later each time
