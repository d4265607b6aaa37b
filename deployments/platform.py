"""What has to run while commands do: PostgreSQL always, Prefect's server for runs, MLflow's for people.

A command starts what it needs and is not running yet, and stops what it started. Where `orchard up` has a supervisor
watch over all of it, nothing is started here: what is missing then is on its way back, and waited for.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from infra import postgres, servers
from infra.database.cluster import Cluster, started_cluster
from infra.metering import booked_elsewhere, ended_cpu_s
from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tasks.domain.errors import OrchardError

Report = Callable[[str], None]

PREFECT = "prefect"
MLFLOW_TRAINING, MLFLOW_PRODUCTION = "mlflow-training", "mlflow-production"


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

    def prefect_program(self, port: int) -> servers.Program:
        """How Prefect's server is run."""
        settings = self.settings
        return servers.prefect_program(
            settings.home, settings.host, port, self.cluster.prefect_url, settings.prefect_auth()
        )

    def mlflow_program(self, name: str, port: int) -> servers.Program:
        """How MLflow's server of that name is run."""
        training, production = self.registry_uris()
        uri, root = {
            MLFLOW_TRAINING: (training, self.settings.training_artifacts_url),
            MLFLOW_PRODUCTION: (production, self.settings.production_artifacts_url),
        }[name]
        return servers.mlflow_program(name, port, uri, root)

    def start_mlflow(self) -> None:
        """MLflow's servers with their UIs, one per registry of our own, until `stop_platform`."""
        for name in mlflow_servers(self.settings):
            if servers.running(self.settings.home, name) is None and not supervised(self.settings):
                port = servers.free_port(self.settings.mlflow_port)
                servers.start(self.settings.home, self.mlflow_program(name, port))


def mlflow_servers(settings: Settings) -> list[str]:
    """Names of the MLflow servers that are ours to run: a registry behind http has a server already."""
    uris = {MLFLOW_TRAINING: settings.training_registry_uri, MLFLOW_PRODUCTION: settings.production_registry_uri}
    return [name for name, uri in uris.items() if not (uri or "").startswith("http")]


def supervised(settings: Settings) -> bool:
    """Whether `orchard up` has a supervisor watch over the platform."""
    return servers.running(settings.home, servers.SUPERVISOR) is not None


@contextmanager
def running_platform(
    settings: Settings, *, prefect: bool = False, keep: bool = False, report: Report = lambda _: None
) -> Iterator[Platform]:
    """The platform, as long as the block runs; with `keep`, what was started stays."""
    with ExitStack() as started:
        if settings.database_url is None and not supervised(settings) and not postgres.is_running(settings.home):
            report("starting PostgreSQL")
            if not keep:
                started.callback(postgres.stop, settings.home)
        platform = Platform(settings, started_cluster(settings))
        if prefect:
            with ThreadPoolExecutor(1) as beside:  # both take seconds on a new database
                registries = beside.submit(_registries, platform, report)
                _prefect(platform, started, keep, report)
                registries.result()
        if not keep and not supervised(settings):
            started.callback(_tell_overhead, platform)  # before the servers stop, whose time it tells
        yield platform


def _tell_overhead(platform: Platform) -> None:
    from deployments.overhead import command_reading, readings
    from infra.database.overhead import record_overhead

    with suppress(OrchardError):  # the work is done: a meter must not make it fail
        record_overhead(platform.cluster, [*readings(platform.settings), command_reading()])


def _stop_prefect(platform: Platform) -> None:
    """Stops it once it has this process's events, and tells what it has used until its end."""
    from deployments.overhead import server_reading
    from infra.database.overhead import record_overhead

    send_events()
    reading, before = server_reading(platform.settings, PREFECT), ended_cpu_s()
    with booked_elsewhere():
        servers.stop(platform.settings.home, PREFECT)
    if reading is not None:
        with suppress(OrchardError):
            last = max(reading.cpu_s, ended_cpu_s() - before)
            record_overhead(platform.cluster, [reading._replace(cpu_s=last)])


def _registries(platform: Platform, report: Report) -> None:
    """Makes MLflow's tables, once: runs have logins of tenants, who may not."""
    from infra.registry.policies import confined

    uris = [uri for uri in platform.registry_uris() if not uri.startswith("http") and not confined(uri)]
    if uris:
        from infra.registry import initialise_registry

        report("preparing the model registries")
        for uri in uris:
            initialise_registry(uri)


def _prefect(platform: Platform, started: ExitStack, keep: bool, report: Report) -> None:
    """Sees that Prefect's API answers, and tells its address to the client of this process and of its children."""
    settings = platform.settings
    if settings.workers is not None:
        os.environ["ORCHARD_WORKERS"] = str(settings.workers)  # flows read it when they are imported
    if settings.prefect_api_url:
        os.environ.update(client_environment(settings, settings.prefect_api_url))
        return
    if supervised(settings):
        server = servers.awaited(settings.home, PREFECT)
    else:
        running = servers.running(settings.home, PREFECT)
        if running is None:
            report("starting the Prefect server")
            port = servers.free_port(settings.prefect_port, settings.host)
            running = servers.start(settings.home, platform.prefect_program(port))
            if not keep:
                started.callback(_stop_prefect, platform)
        server = running
    os.environ.update(client_environment(settings, server.url, settings.prefect_auth()))


def client_environment(
    settings: Settings, api_url: str, auth: str | None = None, logging_level: str = "WARNING"
) -> dict[str, str]:
    """What Prefect's client in a process and in its children reads; `auth` is the login of a server of our own."""
    return {
        "PREFECT_API_URL": api_url,
        **({} if auth is None else {"PREFECT_API_AUTH_STRING": auth}),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", logging_level),
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",  # what the server answers while its database restarts
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # a server of Prefect's own making would forget everything
        "DO_NOT_TRACK": "1",
    }


def send_events() -> None:
    """Waits until this process's events (states of tasks among them) are with Prefect's server."""
    if "prefect.events.worker" in sys.modules:
        from prefect.events.worker import EventsWorker

        logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # that some are left to send is no news to a person
        EventsWorker.drain_all(timeout=10, at_exit=False)


def stop_platform(settings: Settings) -> list[str]:
    """Stops what commands are recorded to have started; returns the names. For all of it, supervised or not, there is
    `deployments.supervision.down`."""
    stopped = [name for name in (MLFLOW_PRODUCTION, MLFLOW_TRAINING, PREFECT) if servers.stop(settings.home, name)]
    if settings.database_url is None and postgres.is_running(settings.home):
        postgres.stop(settings.home)
        stopped.append("postgresql")
    return stopped
