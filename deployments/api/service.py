"""What the endpoints share: settings, the keys, who is locked out, and whom to tell what arrived."""

from __future__ import annotations

import gc
import ipaddress
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from deployments.api.keyring import Keyring
from deployments.api.lockouts import Lockouts
from deployments.api.readings import Readings
from deployments.api.reports import Reports
from deployments.serving.limits import RateLimits
from deployments.serving.precomputed import Precomputed
from deployments.serving.releases import Releases
from deployments.serving.request_meter import RequestMeter
from infra.database.audit import Actor, Audit, Witness
from infra.database.cluster import connected_cluster
from infra.database.queue import Queue
from infra.definitions import load_tiers
from infra.settings import Settings

logger = logging.getLogger(__name__)

Announce = Callable[[str], None]
Dispatch = Callable[[Settings], object]


class Nudge:
    """Calls for a dispatch, in a thread of its own, so that no answer waits for Prefect. However many call while one
    is under way, one more follows: a flood of uploads is no flood of dispatches."""

    def __init__(self, dispatch: Callable[[], object]) -> None:
        self._dispatch = dispatch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dispatch")
        self._lock = threading.Lock()
        self._called = False

    def __call__(self) -> None:
        with self._lock:
            if self._called:
                return
            self._called = True
            self._thread.submit(self._run)

    def _run(self) -> None:
        with self._lock:
            self._called = False
        try:
            self._dispatch()
        except Exception as error:  # whatever it is, the job is recorded, and the scheduled dispatch comes soon
            logger.warning("dispatch failed: %s: %s", type(error).__name__, error)

    def close(self) -> None:
        """Takes no more calls; one under way ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Service:
    """One running API.

    Spaces are opened, and listings read, by few threads of their own: whoever waits there for a database keeps no
    prediction waiting.
    """

    settings: Settings
    keyring: Keyring
    lockouts: Lockouts
    reports: Reports
    announce: Announce
    nudge: Nudge
    releases: Releases
    limits: RateLimits
    precomputed: Precomputed
    readings: Readings
    meter: RequestMeter
    openers: CapacityLimiter
    readers: CapacityLimiter

    @cached_property
    def largest_request(self) -> int:
        """Bytes that an online request of any tier may have."""
        return max(policy.request_bytes for policy in load_tiers(self.settings.tiers_file).values())

    def queue(self) -> Queue:
        """All jobs, as they wait. The cluster is looked up each time: a restarted one may answer elsewhere."""
        return Queue(connected_cluster(self.settings))

    def audit(self) -> Audit:
        """The audit, through the cluster as it is now."""
        return Audit(connected_cluster(self.settings))

    def witness(self, actor: Actor) -> Witness:
        """The audit of what a caller does."""
        return Witness(self.audit(), actor)


async def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


TheService = Annotated[Service, Depends(service_of)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def announce_by_event(path: str) -> None:
    """The default announcer: an event, whose trigger in Prefect runs admission. Prefect is imported when it is due."""
    from flows.events import announce_upload

    announce_upload(path)


@cache
def import_dispatch() -> Dispatch:
    """Imports what dispatches, Prefect included, which takes seconds. What is in memory then stays: the search for
    garbage need not go through it again and again, for tenths of a second in which nobody is answered."""
    from flows.dispatch import dispatch

    gc.collect()
    gc.freeze()
    return dispatch


def dispatch_now(settings: Settings) -> object:
    """The default dispatcher."""
    return import_dispatch()(settings)
