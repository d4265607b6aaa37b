"""What has to run while commands do: PostgreSQL always, Prefect's server for runs, MLflow's for people.

A command starts what it needs and is not running yet, and stops what it started. All of it listens on loopback.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from infra import postgres, servers
from infra.database.cluster import Cluster, started_cluster
from infra.settings import Settings

Report = Callable[[str], None]


@dataclass(frozen=True)
class Platform:
    """What is running: the settings, the database cluster, and Prefect's API where a command asked for it."""

    settings: Settings
    cluster: Cluster
    prefect_api_url: str | None


@contextmanager
def running_platform(
    settings: Settings, *, prefect: bool = False, keep: bool = False, report: Report = lambda _: None
) -> Iterator[Platform]:
    """The platform, as long as the block runs; with `keep`, what was started stays."""
    with ExitStack() as started:
        if settings.database_url is None and not postgres.is_running(settings.home):
            report("starting PostgreSQL")
            if not keep:
                started.callback(postgres.stop, settings.home)
        cluster = started_cluster(settings)
        yield Platform(settings, cluster, _prefect(settings, cluster, started, keep, report) if prefect else None)


def _prefect(settings: Settings, cluster: Cluster, started: ExitStack, keep: bool, report: Report) -> str:
    """Address of Prefect's API, also told to the Prefect client of this process and of its children."""
    url = settings.prefect_api_url
    if url is None:
        server = servers.running(settings.home, "prefect")
        if server is None:
            report("starting the Prefect server")
            server = servers.start_prefect(settings.home, settings.prefect_port, cluster.prefect_url)
            if not keep:
                started.callback(servers.stop, settings.home, "prefect")
        url = server.url
    os.environ.update(
        PREFECT_API_URL=url,
        PREFECT_HOME=str(settings.home / "prefect"),
        PREFECT_LOGGING_LEVEL=os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
    )
    return url


def stop_platform(settings: Settings) -> list[str]:
    """Stops whatever is recorded as started here; returns the names."""
    stopped = [name for name in ("mlflow-production", "mlflow-training", "prefect") if servers.stop(settings.home, name)]
    if settings.database_url is None and postgres.is_running(settings.home):
        postgres.stop(settings.home)
        stopped.append("postgresql")
    return stopped
