"""The application: its parts put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from deployments.api import (
    access,
    budgets,
    health,
    hooks,
    jobs,
    predict,
    problems,
    quarantine,
    releases,
    results,
    runs,
    uploads,
    use_cases,
)
from deployments.api.at_once import AtOnce
from deployments.api.description import describe, operation_id
from deployments.api.keyring import Keyring
from deployments.api.lockouts import Lockouts
from deployments.api.metrics import PlatformCollector, RequestMetrics
from deployments.api.online_metrics import ServingCollector
from deployments.api.priority import keep_first
from deployments.api.process_metrics import ProcessFigures
from deployments.api.readings import Readings
from deployments.api.reports import Reports
from deployments.api.requests import Requests, silence_uvicorn
from deployments.api.service import (
    Announce,
    Dispatch,
    Nudge,
    Service,
    announce_by_event,
    dispatch_now,
    is_loopback,
)
from deployments.serving.breaker import Breaker
from deployments.serving.cache import ModelCache
from deployments.serving.limits import RateLimits
from deployments.serving.precomputed import Precomputed
from deployments.serving.releases import Releases
from deployments.serving.request_meter import RequestMeter
from infra.definitions import load_tiers
from infra.settings import Settings

OPENERS, READERS = 8, 4
"""So many threads open spaces, and read listings, at a time; a file's pieces wait for their turn one by one."""

DESCRIPTION = """Hand in files, follow them, ask for training and scoring; predict rows; read what came of it. Results
are in SQL and on the lake, too.

Every call of `/v1` needs an API key, `Authorization: Bearer orc_…`, which decides whose data is meant; its role
(reader, uploader, admin) decides what may be done. Errors are problem documents (RFC 9457). Every answer has an
`X-Request-ID`; quote it when you ask for help."""


def create_app(
    settings: Settings,
    *,
    announce: Announce = announce_by_event,
    dispatch: Dispatch = dispatch_now,
    lockouts: Lockouts | None = None,
) -> FastAPI:
    """The API of one Orchard. `announce` is told of files in the inbox; `dispatch` is called after work was asked for,
    and when the API starts: jobs may wait that were asked for while nobody could hand them out."""
    nudge, reports = Nudge(partial(dispatch, settings)), Reports(settings)
    cache = ModelCache(
        settings.serving_memory_mb * 10**6,
        {tier.value: policy.memory_share for tier, policy in load_tiers(settings.tiers_file).items()},
    )
    registry, breaker = CollectorRegistry(), Breaker()
    registry.register(PlatformCollector(settings))
    own, figures = registry, None
    if settings.api_processes > 1:
        own = CollectorRegistry()
        figures = ProcessFigures(settings.home / "api-figures", own)
        registry.register(figures)
    serving, meter = Releases(settings, cache, breaker), RequestMeter(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        silence_uvicorn()
        nudge()
        reports.start()
        serving.start()
        meter.start()
        if figures is not None:
            figures.start()
        priority = asyncio.create_task(keep_first(settings.api_processes))
        yield
        priority.cancel()
        if figures is not None:
            figures.close()
        meter.close()
        serving.close()
        nudge.close()
        reports.close()

    local = is_loopback(settings.host)
    # The page's scripts come with it: those of other hosts may be out of reach, and could read the key typed into it.
    app = (FastAPIOffline if local else FastAPI)(
        title="Orchard",
        version=version("orchard"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url="/docs" if local else None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked for anew with every request
        redirect_slashes=False,  # a redirected upload would be sent twice
    )
    own.register(ServingCollector(cache, serving, list(load_tiers(settings.tiers_file))))
    app.state.registry = registry
    app.state.service = Service(
        settings=settings,
        keyring=Keyring(settings, breaker),
        lockouts=lockouts or Lockouts(),
        reports=reports,
        announce=announce,
        nudge=nudge,
        releases=serving,
        limits=RateLimits(settings.api_processes),
        precomputed=Precomputed(breaker),
        readings=Readings(),
        meter=meter,
        openers=CapacityLimiter(OPENERS),
        readers=CapacityLimiter(READERS),
    )
    app.add_middleware(AtOnce, service=app.state.service)
    app.add_middleware(Requests, metrics=RequestMetrics(own))
    problems.install(app)
    # Where two paths could be meant, that of a use case comes first: no id of an upload, run or job is such a word.
    for part in (
        predict,
        use_cases,
        results,
        releases,
        uploads,
        jobs,
        runs,
        quarantine,
        budgets,
        access,
        hooks,
        health,
    ):
        app.include_router(part.router)
    describe(app)
    return app
