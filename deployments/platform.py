"""What has to run while commands do: PostgreSQL always, Prefect's server for runs, MLflow's for people.

A command starts what it needs and is not running yet, and stops what it started. All of it listens on loopback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from infra import postgres, servers
from infra.database.cluster import Cluster, started_cluster
from infra.settings import Settings
from infra.space import TenantSpace, open_space

Report = Callable[[str], None]


@dataclass(frozen=True)
class Platform:
    """What is running."""

    settings: Settings
    cluster: Cluster

    def open_space(self, tenant: str) -> TenantSpace:
        """The space of an onboarded tenant. Raises `NotFound`."""
        return open_space(self.settings, tenant)

    def registry_uris(self) -> tuple[str, str]:
        """Addresses of the training and the production registry; they hold passwords."""
        return (
            self.settings.training_registry_uri or self.cluster.training_registry_url,
            self.settings.production_registry_uri or self.cluster.production_registry_url,
        )

    def start_mlflow(self) -> None:
        """MLflow's servers with their UIs, one per registry, until `stop_platform`."""
        settings = self.settings
        roots = (settings.training_artifacts_url, settings.production_artifacts_url)
        for name, uri, root in zip(("mlflow-training", "mlflow-production"), self.registry_uris(), roots, strict=True):
            if servers.running(settings.home, name) is None:
                servers.start_mlflow(settings.home, settings.mlflow_port, name, uri, root)


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
        if prefect:
            _prefect(settings, cluster, started, keep, report)
        yield Platform(settings, cluster)


def _prefect(settings: Settings, cluster: Cluster, started: ExitStack, keep: bool, report: Report) -> None:
    """Sees that Prefect's API answers, and tells its address to the client of this process and of its children."""
    url = settings.prefect_api_url
    if url is None:
        server = servers.running(settings.home, "prefect")
        if server is None:
            report("starting the Prefect server")
            server = servers.start_prefect(settings.home, settings.prefect_port, cluster.prefect_url)
            if not keep:
                started.callback(servers.stop, settings.home, "prefect")
                started.callback(_send_events)  # runs before the server stops
        url = server.url
    if settings.workers is not None:
        os.environ["ORCHARD_WORKERS"] = str(settings.workers)  # flows read it when they are imported
    os.environ.update(
        PREFECT_API_URL=url,
        PREFECT_HOME=str(settings.home / "prefect"),
        PREFECT_LOGGING_LEVEL=os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING"),
        PREFECT_CLIENT_RETRY_EXTRA_CODES="500",  # what the server answers while its database restarts
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="false",  # a server of Prefect's own making would forget everything
        DO_NOT_TRACK="1",
    )


def _send_events() -> None:
    """Waits until this process's events (states of tasks among them) are with Prefect's server."""
    if "prefect.events.worker" in sys.modules:
        from prefect.events.worker import EventsWorker

        EventsWorker.drain_all(timeout=10, at_exit=False)


def stop_platform(settings: Settings) -> list[str]:
    """Stops whatever is recorded as started here; returns the names."""
    stopped = [
        name for name in ("mlflow-production", "mlflow-training", "prefect") if servers.stop(settings.home, name)
    ]
    if settings.database_url is None and postgres.is_running(settings.home):
        postgres.stop(settings.home)
        stopped.append("postgresql")
    return stopped
