"""Serves the API: `python -m deployments.api`."""

from __future__ import annotations

import logging
import os
import resource
import sys
import tempfile
from contextlib import ExitStack
from importlib import import_module

import uvicorn
from fastapi import FastAPI

from deployments.api.app import create_app
from deployments.api.service import import_dispatch
from deployments.platform import PREFECT, client_environment
from infra import servers
from infra.database.connect import keep_open
from infra.registry.store import import_mlflow
from infra.scratch import scratch
from infra.settings import Settings, load_settings

SWITCH_S = 0.0001
"""So long another thread that computes keeps the event loop waiting, each time that it comes back from the system: a
fiftieth of Python's default, with which requests pile up behind whatever the background does."""

CONNECTIONS = 6
"""To each database: whoever asks about keys, releases and turns, and books, asks at the same time."""

HEADROOM_MB = 4_000
"""Beside models, for everything else. A request that wants more fails alone, where the machine would have failed."""

SHUTDOWN_S = 10
"""An upload that is still coming in then is cut off; whoever sent it sends it again."""

_held = ExitStack()
"""For as long as the process lives, which a signal ends."""


def main() -> None:
    """Serves until it is told to stop. The access log is the application's own: it leaves out query strings."""
    settings = load_settings()
    _limit_memory((settings.serving_memory_mb + HEADROOM_MB) * 10**6)
    _set_up_logging()
    _point_prefect(settings)
    uvicorn.run(
        "deployments.api.__main__:application",
        factory=True,
        workers=settings.api_processes,
        host=settings.host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


def application() -> FastAPI:
    """The application of one process. With several, each is a new interpreter, which has not been through `main`."""
    _set_up_logging()
    settings = load_settings()
    # Copies of releases from S3, among others. What a killed process leaves there, the next one removes.
    tempfile.tempdir = str(_held.enter_context(scratch(settings.home / "scratch" / "api", "api")))
    sys.setswitchinterval(SWITCH_S)
    keep_open(CONNECTIONS)
    # Before anybody is answered: later it would keep all of them waiting for seconds.
    import_mlflow()
    import_module("lightgbm")
    import_dispatch()
    return create_app(settings)


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per call to Prefect is too much
    # A line for each request: what no format shows need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _limit_memory(size_bytes: int) -> None:
    """Of each process. What is mapped from files does not count."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(
        resource.RLIMIT_DATA, (size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard), hard)
    )


def _point_prefect(settings: Settings) -> None:
    """Tells Prefect's client, which is imported later than this, where its server is. What `orchard up` has put into
    the environment stays; without any server, the client must not make one of its own."""
    if "PREFECT_API_URL" in os.environ:
        return
    own = servers.running(settings.home, PREFECT) if settings.prefect_api_url is None else None
    if own is not None:
        os.environ.update(client_environment(settings, own.url, settings.prefect_auth()))
    elif settings.prefect_api_url is not None:
        os.environ.update(client_environment(settings, settings.prefect_api_url))
    else:
        os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"


if __name__ == "__main__":
    main()
