"""What the platform consists of on this machine: each part is one program that supervisord runs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from deployments.platform import MLFLOW_PRODUCTION, MLFLOW_TRAINING, PREFECT, client_environment, mlflow_servers
from deployments.provision import own_pools, pool_limits
from infra.servers import free_port, origin_of
from infra.settings import SETTINGS_FILE_VARIABLE, Settings
from tasks.domain.tenant import own_pool

POSTGRESQL, API, INBOX = "postgresql", "api", "inbox"
WORKER = "worker-"
"""Prefix of a worker's part; its pool's name follows."""


class Stage(IntEnum):
    """Parts start in this order, those of one stage at once, and stop in the reverse one: runs need the servers to say
    how they ended, and the servers need the database."""

    DATABASE = 1
    SERVERS = 2
    WORK = 3


@dataclass(frozen=True)
class Part:
    """One program under supervision."""

    name: str
    command: tuple[str, ...]
    stop_signal: str = "TERM"
    stop_wait_s: int = 20
    whole_group: bool = True
    """Whether its children are stopped with it by signals to its process group."""

    @property
    def stage(self) -> Stage:
        """When it starts and stops."""
        return stage_of(self.name)


class Ports(NamedTuple):
    """Where the servers listen, as chosen when the platform is started: they stay there until it is stopped."""

    prefect: int
    mlflow_training: int
    mlflow_production: int
    api: int


def stage_of(name: str) -> Stage:
    """The stage of the part of that name."""
    if name == POSTGRESQL:
        return Stage.DATABASE
    return Stage.SERVERS if name in (PREFECT, MLFLOW_TRAINING, MLFLOW_PRODUCTION) else Stage.WORK


def choose_ports(settings: Settings) -> Ports:
    """The ports of the settings; for one that is busy, the next free one above it."""
    taken: list[int] = []
    for wanted, host in (
        (settings.prefect_port, settings.host),
        (settings.mlflow_port, "127.0.0.1"),
        (settings.mlflow_port, "127.0.0.1"),
        (settings.api_port, settings.host),
    ):
        taken.append(free_port(wanted, host, taken))
    return Ports(*taken)


def parts_of(settings: Settings, ports: Ports) -> list[Part]:
    """The parts that are this machine's to run: what the settings say is elsewhere is not among them."""
    parts = []
    if settings.database_url is None:
        # SIGINT is PostgreSQL's fast shutdown. It stops its children itself, in order.
        parts.append(Part(POSTGRESQL, _launch(POSTGRESQL), "INT", 60, whole_group=False))
    if not settings.prefect_api_url:
        parts.append(Part(PREFECT, _launch(PREFECT, ports.prefect)))
    for name, port in ((MLFLOW_TRAINING, ports.mlflow_training), (MLFLOW_PRODUCTION, ports.mlflow_production)):
        if name in mlflow_servers(settings):
            parts.append(Part(name, _launch(name, port)))
    parts.append(Part(API, _launch(API, ports.api)))
    parts += [_worker(pool) for pool in pool_limits(settings)]
    parts.append(Part(INBOX, _module("deployments.inbox")))
    return parts


def own_workers(settings: Settings) -> list[Part]:
    """The workers of tenants with compute of their own. The database must run: it knows who they are."""
    return [_worker(pool) for pool in own_pools(settings)]


def is_own_worker(name: str) -> bool:
    """Whether the part works for a single tenant."""
    return name.startswith(f"{WORKER}{own_pool('')}")


def _worker(pool: str) -> Part:
    # A run outlives its worker: `down` asks it to stop and lets it say how it ended, see `down`.
    return Part(f"{WORKER}{pool}", _module("deployments.worker", pool), whole_group=False)


def environment_of(settings: Settings, ports: Ports) -> dict[str, str]:
    """What all parts find in their environment, beside that of `orchard up`. It holds Prefect's login."""
    # Parts and runs work in other folders, so relative paths are fixed here.
    paths = {"ORCHARD_HOME": str(settings.home)}
    if settings.tiers_file is not None:
        paths["ORCHARD_TIERS_FILE"] = str(settings.tiers_file.resolve())
    if file := os.environ.get(SETTINGS_FILE_VARIABLE):
        paths[SETTINGS_FILE_VARIABLE] = os.path.abspath(file)
    return {
        **paths,
        **client_environment(
            settings,
            settings.prefect_api_url or f"{origin_of(settings.host, ports.prefect)}/api",
            None if settings.prefect_api_url else settings.prefect_auth(),
            logging_level="INFO",
        ),
        "PREFECT_WORKER_QUERY_SECONDS": "1",  # how long a submitted run waits at most until a worker sees it
    }


def _launch(name: str, *port: int) -> tuple[str, ...]:
    return _module("deployments.supervision.launch", name, *map(str, port))


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)
