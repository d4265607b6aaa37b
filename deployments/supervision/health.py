"""Whether each part works: what supervisord says of its process, and a question put to the part itself."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import psutil
import psycopg
from sqlalchemy import make_url

from deployments.platform import PREFECT
from deployments.supervision.parts import INBOX, POSTGRESQL, WORKER, Ports, parts_of
from deployments.supervision.supervisor import RUNNING, State, connected
from infra import postgres, servers
from infra.database.cluster import connected_cluster
from infra.settings import Settings
from tasks.domain.errors import OrchardError

TIMEOUT_S = 3


class Condition(StrEnum):
    """How a part is."""

    HEALTHY = "healthy"
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Health:
    """A part's condition. `process` is what watches over it says: supervisord's word; `on demand` for what a command
    started; `elsewhere` for what the settings say is not ours to run."""

    part: str
    health: Condition
    process: str
    pid: int | None
    uptime_s: float | None
    url: str | None
    reason: str | None


def health_of(settings: Settings) -> list[Health]:
    """All parts, in the order in which they start. Never raises because of a part that does not work."""
    supervisor = connected(settings.home)
    states = supervisor.states() if supervisor is not None else {}
    own = [part.name for part in parts_of(settings, Ports(0, 0, 0, 0))]
    names = [*dict.fromkeys([POSTGRESQL, PREFECT, *own, *states])]
    if states:  # what runs was decided by the settings of `orchard up`
        names = [name for name in names if name in states or name in (POSTGRESQL, PREFECT)]
    with ThreadPoolExecutor(len(names)) as pool:
        reasons = list(pool.map(lambda name: trouble_of(settings, name), names))
    return [
        _supervised(settings, states[name], reason)
        if name in states
        else _unsupervised(settings, name, reason, name in own)
        for name, reason in zip(names, reasons, strict=True)
    ]


def trouble_of(settings: Settings, name: str) -> str | None:
    """Asks the part itself: why it does not work, or None when it does."""
    try:
        if name == POSTGRESQL:
            return _trouble_of_database(settings)
        if name.startswith(WORKER):
            return _trouble_of_pool(settings, name.removeprefix(WORKER))
        if name == INBOX:
            return None  # it can only be seen to live
        if name == PREFECT and settings.prefect_api_url:
            ready = f"{settings.prefect_api_url}/ready"
        else:
            server = servers.running(settings.home, name)
            if server is None:
                return "it does not run"
            ready = server.ready or server.url
        return None if servers.answers(ready) else f"no answer at {ready}"
    except (OrchardError, OSError) as error:
        return str(error)


def _trouble_of_database(settings: Settings) -> str | None:
    url = make_url(connected_cluster(settings).operator_url).set(drivername="postgresql")
    try:
        with psycopg.connect(url.render_as_string(hide_password=False), connect_timeout=TIMEOUT_S) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return str(error).strip().splitlines()[0]
    return None


def _trouble_of_pool(settings: Settings, pool: str) -> str | None:
    """Prefect calls a pool ready while it hears from a worker of it. Raises `OSError` when Prefect does not answer."""
    server = servers.running(settings.home, PREFECT)
    api_url = settings.prefect_api_url or (server.url if server else None)
    if api_url is None:
        return "Prefect's server does not run"
    request = urllib.request.Request(f"{api_url}/work_pools/{pool}", headers=_authorization(settings))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            status = json.load(response)["status"]
    except urllib.error.HTTPError as error:
        return f"Prefect does not tell of pool {pool}: {error}"
    return None if status in ("READY", "PAUSED") else f"Prefect hears of no worker of pool {pool}"


def _authorization(settings: Settings) -> dict[str, str]:
    own = "" if settings.prefect_api_url else settings.prefect_auth()
    if login := own or os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


def _supervised(settings: Settings, state: State, reason: str | None) -> Health:
    alive = state.state in (RUNNING, "STARTING")
    if alive:
        condition = Condition.HEALTHY if reason is None else Condition.UNHEALTHY
        if reason is not None and state.state != RUNNING:
            condition = Condition.STARTING
    else:
        condition = Condition.STOPPED if state.state in ("STOPPED", "STOPPING") else Condition.UNHEALTHY
        reason = state.description
    server = servers.running(settings.home, state.name)
    return Health(
        part=state.name,
        health=condition,
        process=state.state.lower(),
        pid=state.pid,
        uptime_s=round(time.time() - state.started, 1) if alive else None,
        url=server.url if server else None,
        reason=reason,
    )


def _unsupervised(settings: Settings, name: str, reason: str | None, ours: bool) -> Health:
    server = servers.running(settings.home, name)
    pid = server.pid if server else None
    if name == POSTGRESQL and ours and (address := postgres.address(settings.home)) is not None:
        pid = address.pid
    if ours and pid is None:
        return Health(name, Condition.STOPPED, "none", None, None, None, None)
    return Health(
        part=name,
        health=Condition.HEALTHY if reason is None else Condition.UNHEALTHY,
        process="on demand" if ours else "elsewhere",
        pid=pid,
        uptime_s=round(time.time() - psutil.Process(pid).create_time(), 1) if pid else None,
        url=server.url if server else settings.prefect_api_url if name == PREFECT else None,
        reason=reason,
    )
