"""`orchard up`: the parts start in order, each is waited for until it works, and stay when the command ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deployments.platform import PREFECT, Platform, Report, client_environment
from deployments.supervision.configuration import log_path, write_configuration
from deployments.supervision.down import alone, stop_everything
from deployments.supervision.health import trouble_of
from deployments.supervision.parts import (
    POSTGRESQL,
    WORKER,
    Stage,
    choose_ports,
    environment_of,
    is_own_worker,
    own_workers,
    parts_of,
    stage_of,
)
from deployments.supervision.supervisor import RUNNING, STOPPED, State, Supervisor, connected, started
from infra import postgres, servers
from infra.database.cluster import started_cluster
from infra.settings import Settings
from tasks.domain.errors import Retryable

READY_TIMEOUT_S = 180
STARTS = 3
"""A part that was started so often while it is waited for will not come up by being started again."""

TAIL_BYTES = 1500


def up(settings: Settings, report: Report = lambda _: None) -> bool:
    """Starts the platform, and waits until every part of it works; False when it was up already.

    What commands had started on demand is stopped first, and started anew under supervision. A platform that is up but
    for some parts gets these started, or waited for, and the workers of tenants that have compute of their own since.
    Raises `Retryable` when a part does not come up; a platform that was started by this call is stopped again then.
    """
    with alone(settings.home, report):
        supervisor = connected(settings.home)
        if supervisor is not None:
            missing = _not_working(settings, supervisor)
            if missing:  # and what comes before them: an `up` that was killed may not have come so far
                _bring_up(settings, supervisor, missing, report)
            return _own_workers(settings, supervisor, report) or bool(missing)
        if others := stop_everything(settings, lambda _: None):
            report(f"taking over: stopped {', '.join(others)} of an earlier command")
        try:
            _start(settings, report)
        except BaseException:
            report("stopping what was started")
            stop_everything(settings, lambda _: None)
            raise
    return True


def _start(settings: Settings, report: Report) -> None:
    ports = choose_ports(settings)
    parts = parts_of(settings, ports)
    write_configuration(settings.home, parts)
    supervisor = started(settings.home, os.environ | environment_of(settings, ports))
    _bring_up(settings, supervisor, [part.name for part in parts], report)
    _own_workers(settings, supervisor, report)


def _not_working(settings: Settings, supervisor: Supervisor) -> list[str]:
    """Parts that do not run, or run and do not work."""
    states = supervisor.states()
    with ThreadPoolExecutor(len(states)) as pool:
        troubles = pool.map(lambda name: trouble_of(settings, name), states)
    return [name for name, trouble in zip(states, troubles, strict=True) if states[name].state in STOPPED or trouble]


def _bring_up(settings: Settings, supervisor: Supervisor, names: Collection[str], report: Report) -> None:
    """Starts these parts in their order, and what is done in between, which changes nothing the second time."""
    stages = {stage: [name for name in names if stage_of(name) is stage] for stage in Stage}
    if stages[Stage.DATABASE] or settings.database_url:
        report(f"starting {', '.join(stages[Stage.DATABASE]) or 'with the database that is set'}")
    supervisor.start(stages[Stage.DATABASE])
    # On a new database there is no login yet that could be asked for.
    _await(settings, supervisor, stages[Stage.DATABASE], report, lambda *_: _trouble_of_new_database(settings))
    report("preparing the databases")
    platform = Platform(settings, started_cluster(settings))
    prefect = [name for name in stages[Stage.SERVERS] if name == PREFECT]
    if stages[Stage.SERVERS]:
        report(f"starting {', '.join(stages[Stage.SERVERS])}")
    supervisor.start(prefect)
    with ThreadPoolExecutor(1) as beside:  # both take seconds on a new database
        registries = beside.submit(_initialise_registries, platform)
        _await(settings, supervisor, prefect, report)
        registries.result()
    supervisor.start(stages[Stage.SERVERS])  # MLflow's would make the tables that are there now
    _provision(settings, report)
    if not settings.prefect_api_url and not _workers(supervisor):
        _forget_leftovers()
    if stages[Stage.WORK]:
        report(f"starting {', '.join(stages[Stage.WORK])}")
    supervisor.start(stages[Stage.WORK])
    _await(settings, supervisor, [name for name in names if name not in (POSTGRESQL, PREFECT)], report)


def _own_workers(settings: Settings, supervisor: Supervisor, report: Report) -> bool:
    """Starts the workers of tenants with compute of their own, and stops those of tenants that have none any more;
    whether there was anything to do."""
    wanted = {part.name: part for part in own_workers(settings)}
    there = {name for name in supervisor.states() if is_own_worker(name)}
    new = [part for name, part in wanted.items() if name not in there]
    old = sorted(there - wanted.keys())
    if not new and not old:
        return False
    _provision(settings, report)
    supervisor.change(new, old)
    names = [part.name for part in new]
    if names:
        report(f"starting {', '.join(names)}")
    supervisor.start(names)
    _await(settings, supervisor, names, report)
    return True


def _initialise_registries(platform: Platform) -> None:
    from infra.registry import initialise_registry

    for uri in platform.registry_uris():
        initialise_registry(uri)


def _provision(settings: Settings, report: Report) -> None:
    """Makes pools and deployments, as a client of the server that the parts were told of."""
    report("making work pools and deployments")
    url = settings.prefect_api_url or servers.awaited(settings.home, PREFECT).url
    auth = None if settings.prefect_api_url else settings.prefect_auth()
    os.environ.update(client_environment(settings, url, auth))
    from deployments.provision import provision  # Prefect reads its address when it is imported

    for change in provision(settings):
        report(f"  {change}")


def _workers(supervisor: Supervisor) -> list[str]:
    """The workers that run."""
    states = supervisor.states().items()
    return [name for name, state in states if name.startswith(WORKER) and state.state not in STOPPED]


def _forget_leftovers() -> None:
    from prefect.client.orchestration import get_client

    from flows.reconcile import crash_leftovers

    with get_client(sync_client=True) as client:
        crash_leftovers(client)


def _trouble_of_new_database(settings: Settings) -> str | None:
    return None if postgres.is_running(settings.home) else "it does not run"


def _await(
    settings: Settings,
    supervisor: Supervisor,
    names: Collection[str],
    report: Report,
    ask: Callable[[Settings, str], str | None] = trouble_of,
) -> None:
    """Waits until the parts work. Raises `Retryable`, with the end of its log, for one that does not."""
    waiting = dict.fromkeys(names, "")
    starts: dict[str, set[float]] = {name: set() for name in names}
    deadline = time.monotonic() + READY_TIMEOUT_S
    while waiting:
        states = supervisor.states()
        for name in list(waiting):
            starts[name].add(states[name].started)
            if states[name].state == "FATAL" or len(starts[name]) > STARTS:
                raise _not_up(settings.home, states[name], f"it ended {len(starts[name])} times")
            # The stages that others build on are asked at once; a worker is not believed before it has lived a while.
            if states[name].state == RUNNING or (stage_of(name) is not Stage.WORK and states[name].pid):
                trouble = ask(settings, name)
                if trouble is None:
                    report(f"  {name} is ready")
                    del waiting[name]
                else:
                    waiting[name] = trouble
        if waiting and time.monotonic() > deadline:
            name, trouble = next(iter(waiting.items()))
            raise _not_up(settings.home, states[name], trouble or states[name].description)
        if waiting:
            time.sleep(0.2)


def _not_up(home: Path, state: State, why: str) -> Retryable:
    log = log_path(home, state.name)
    return Retryable(
        f"{state.name} did not come up: {why}",
        expected=f"that it works within {READY_TIMEOUT_S} s",
        found=log.read_text(errors="replace")[-TAIL_BYTES:].strip() if log.exists() else "no output",
        where=str(log),
        hint="mend what the log says, and try again",
    )
