"""Moving a tenant from one way of isolation to another: all it has is copied and compared before anything is switched.

Meanwhile nothing of the tenant is taken in or handed out; what was asked for waits. A move that was cut off goes on
when it is asked for again, or back when the old way is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

from deployments.platform import Platform
from infra.database.audit import Actor, Audit
from infra.database.cluster import drop_silo
from infra.database.operator import Operator
from infra.database.queue import Queue
from infra.database.removal import TenantRemoval
from infra.database.transfer import content, copy_late_usage, copy_rows, remove_rows, repoint_releases
from infra.database.uploads import INTAKE
from infra.isolation.roles import provide, remove_silo
from infra.lake.transfer import Copied, copy_files, remove_files
from infra.places import Places, places
from infra.registry.repoint import check_movable, repoint
from tasks.domain.errors import Busy, InvalidDefinition, OrchardError, Tampered
from tasks.domain.tenant import Isolation, Tenant, TenantState

Report = Callable[[str], None]

DRAIN_S = 600
"""So long a move waits for runs of the tenant to end."""


class Moved(NamedTuple):
    """What a move did: rows and files that were copied, and compared with what they were copied from."""

    rows: int
    files: int
    bytes: int


def move(
    platform: Platform,
    tenant_id: str,
    to: Isolation,
    by: Actor,
    report: Report = lambda _: None,
    drain_s: int = DRAIN_S,
) -> Moved | None:
    """Moves a tenant; None when it is isolated like that already.

    Raises `NotFound`, `Busy` when its runs do not end in time, `Tampered` when a copy differs, `InvalidDefinition` for
    a registry whose entries cannot be changed.
    """
    operator, audit = Operator(platform.cluster), Audit(platform.cluster)
    tenant = operator.tenant(tenant_id)
    isolated, state = tenant.isolation or Isolation.POOL, operator.state(tenant_id)
    if state is TenantState.LEAVING:
        raise InvalidDefinition(f"tenant {tenant_id!r} is leaving", hint=f"orchard tenants erase {tenant_id}")
    if isolated is to and state is TenantState.ACTIVE:
        return None
    for uri in platform.registry_uris():
        check_movable(uri)
    operator.set_state(tenant_id, TenantState.MOVING)
    try:
        with _held(operator, tenant, report, drain_s):
            moved = _move(platform, operator, tenant, to, report)
    except OrchardError as error:
        audit.record("tenant.moved", "failed", by=by, tenant=tenant_id, to=to.value, reason=type(error).__name__)
        raise
    operator.set_state(tenant_id, TenantState.ACTIVE)
    audit.record("tenant.moved", "done", by=by, tenant=tenant_id, was=isolated.value, to=to.value, **moved._asdict())
    return moved


@contextmanager
def _held(operator: Operator, tenant: Tenant, report: Report, drain_s: int) -> Iterator[None]:
    """Waits for the tenant's runs to end, and holds its use cases, so that no other can begin."""
    records, queue = operator.records(tenant.id), Queue(operator.cluster)
    waiting, deadline = [INTAKE, *(use_case.id for use_case in tenant.use_cases)], time.monotonic() + drain_s
    with ExitStack() as held:
        while (jobs := queue.running_of(tenant.id)) or waiting:
            waiting = [use_case for use_case in waiting if jobs or not _hold(held, records.hold(use_case))]
            if not jobs and not waiting:
                break
            if time.monotonic() > deadline:
                raise Busy(
                    f"runs of {tenant.id} have not ended within {drain_s} s",
                    found=f"{jobs} jobs; busy: {', '.join(each or 'uploads' for each in waiting) or 'none'}",
                    hint="nothing was moved; wait for them, or cancel them in Prefect's UI, and run the command again",
                )
            report(f"waiting for runs of {tenant.id} to end")
            time.sleep(1)
        yield


def _hold(held: ExitStack, lock: AbstractContextManager[None]) -> bool:
    try:
        held.enter_context(lock)
    except Busy:
        return False
    return True


def _move(platform: Platform, operator: Operator, tenant: Tenant, to: Isolation, report: Report) -> Moved:
    """Copies what is not there yet, switches, and removes what is left; each step may be repeated."""
    cluster = platform.cluster
    source, target = (places(platform.settings, tenant.id, each, tenant.tier) for each in (_other(to), to))
    here, there = (
        (cluster.operator_url, cluster.silo_url(tenant.id))
        if to is Isolation.SILO
        else (cluster.silo_url(tenant.id), cluster.operator_url)
    )
    moved = Moved(0, 0, 0)
    crosses = (tenant.isolation is Isolation.SILO) is not (to is Isolation.SILO)
    if crosses or to is Isolation.SILO:
        provide(platform.settings, tenant, _other(to), to)
    if crosses:
        if to is Isolation.SILO:
            report("making the silo's database")
            operator.define_silo(tenant)
        report("copying rows")
        copy_rows(here, there, tenant.id)
        rows = _compare(here, there, tenant.id)
        copied = _copy_places(source, target, report)
        repoint_releases(there, tenant.id, source.production_artifacts.url, target.production_artifacts.url)
        moved = Moved(rows, copied.files, copied.bytes)
    report("switching")
    training, production = platform.registry_uris()
    repoint(training, tenant.id, source.training_artifacts.url, target.training_artifacts.url)
    repoint(production, tenant.id, source.production_artifacts.url, target.production_artifacts.url)
    operator.set_isolation(tenant.id, to)
    report("removing what is left in the other place")
    if here in TenantRemoval(cluster, tenant.id).urls():
        copy_late_usage(here, there, tenant.id)
    if to is Isolation.SILO:
        remove_rows(cluster.operator_url, tenant.id)
    else:
        drop_silo(cluster, tenant.id)
    for place in source.all():
        if to is Isolation.SILO or place.local is not None:
            remove_files(place)
    if to is not Isolation.SILO:
        remove_silo(platform.settings, tenant.id)
    provide(platform.settings, tenant, to)
    return moved


def _other(isolation: Isolation) -> Isolation:
    """One whose data is elsewhere."""
    return Isolation.POOL if isolation is Isolation.SILO else Isolation.SILO


def _compare(here: str, there: str, tenant_id: str) -> int:
    """How many rows were copied. Raises `Tampered` when a table differs."""
    source, target = content(here, tenant_id), content(there, tenant_id)
    if source["usage"] != target["usage"]:  # requests were answered, and booked, since it was copied
        copy_late_usage(here, there, tenant_id)
        source, target = content(here, tenant_id), content(there, tenant_id)
    for name, expected in source.items():
        if target[name] != expected:
            raise Tampered(
                f"the copy of table {name} differs from it",
                expected=f"{expected.rows:,} rows, digest {expected.digest}",
                found=f"{target[name].rows:,} rows, digest {target[name].digest}",
                where=tenant_id,
                hint="nothing was switched; see that nobody writes there, and run the command again",
            )
    return sum(each.rows for each in source.values())


def _copy_places(source: Places, target: Places, report: Report) -> Copied:
    files = size = 0
    for here, there in zip(source.all(), target.all(), strict=True):
        report(f"copying files to {there.url}")
        copied = copy_files(here, there)
        files, size = files + copied.files, size + copied.bytes
    return Copied(files, size)
