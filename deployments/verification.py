"""The proof that tenants are kept apart, by hand and at onboarding: against the platform that is up, or against an API
that is served for the time of the proof."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from deployments.api.app import create_app
from deployments.platform import Platform
from flows.attacks.suite import Progress, Proof, prove
from infra import servers
from infra.database.audit import Actor
from infra.database.cluster import connected_cluster
from infra.database.operator import Operator
from infra.registry import initialise_registry
from infra.settings import Settings
from tasks.domain.errors import Retryable

STARTED_S = 20


def verify(
    settings: Settings,
    attacker: str | None = None,
    victim: str | None = None,
    *,
    quick: bool = False,
    by: Actor,
    progress: Progress = lambda _: None,
    planned: Callable[[int], None] = lambda _: None,
) -> Proof:
    """Attacks, over HTTP too. Raises `NotFound`, `InvalidDefinition`."""
    if not quick:
        for uri in Platform(settings, connected_cluster(settings)).registry_uris():
            initialise_registry(uri)  # a registry without tables has nothing to attack
    with api_of(settings) as url:
        return prove(settings, attacker, victim, quick=quick, api_url=url, by=by, progress=progress, planned=planned)


def verify_new(settings: Settings, tenant: str, by: Actor) -> Proof:
    """Attacks a new tenant by another one, and another one by it, with what is quick; through the API only where one
    runs. Proves nothing where there is no other tenant."""
    others = [each.id for each in Operator(connected_cluster(settings)).tenants() if each.id != tenant]
    if not others:
        return prove(settings, tenant, quick=True, by=by)
    running = servers.running(settings.home, "api")
    url = running.url if running is not None else None
    one, other = (
        prove(settings, attacker, victim, quick=True, api_url=url, by=by)
        for attacker, victim in ((others[0], tenant), (tenant, others[0]))
    )
    return one.model_copy(
        update={"attempts": one.attempts + other.attempts, "seconds": round(one.seconds + other.seconds, 1)}
    )


@contextmanager
def api_of(settings: Settings) -> Iterator[str]:
    """Address of the API that runs; where none does, of one that lives as long as the block and starts no work."""
    running = servers.running(settings.home, "api")
    if running is not None:
        yield running.url
        return
    with _served(settings) as url:
        yield url


@contextmanager
def _served(settings: Settings) -> Iterator[str]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    app = create_app(settings, announce=lambda _: None, dispatch=lambda _: None)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="attacked-api")
    loggers = [logging.getLogger(name) for name in ("deployments.api", "uvicorn")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # it is refused what it asks for all the time, and that is no news
    thread.start()
    try:
        deadline = time.monotonic() + STARTED_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise Retryable("the API that was to be attacked did not start", hint="orchard up, and try again")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=STARTED_S)
        listener.close()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
