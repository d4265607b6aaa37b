"""The steps of an erasure, in order. Each finds what there is, says how much, and removes it; each may be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deployments.leaving.files import TenantFiles
from deployments.leaving.orchestration import Orchestration
from deployments.platform import Platform, Report
from infra.database.audit import Actor, Audit
from infra.database.leavers import leavers
from infra.database.removal import TenantRemoval
from infra.database.stillness import wait_until_still
from infra.isolation.roles import remove
from infra.mentions import Leaver
from infra.places import places
from infra.registry.removal import entries_of, remove_entries
from tasks.domain.tenant import Isolation, own_pool

RUNS_END_S = 60
"""So long runs have to end when they are cancelled; the worker asks their processes twice meanwhile."""

KEYS_FORGOTTEN_S = 3
"""A key that the API knew is good for two more seconds."""

STILL_S = 600
"""So long a run or an upload that nobody could cancel has to end."""


EXPORT = "export"
"""The step before anything is removed."""


@dataclass(frozen=True)
class Leaving:
    """A tenant that leaves, and what its erasure works with."""

    platform: Platform
    by: Actor
    subject: str
    leaver: Leaver
    files: TenantFiles
    rows: TenantRemoval
    prefect: Orchestration
    report: Report
    export_to: Path | None = None
    runs_end_s: float = RUNS_END_S
    still_s: float = STILL_S

    @property
    def tenant(self) -> str:
        return self.leaver.tenant


class Step(NamedTuple):
    """One step: its name in the certificate, what it finds, and how it removes that."""

    name: str
    find: Callable[[Leaving], Mapping[str, int]]
    remove: Callable[[Leaving], None]


def _nothing(_: Leaving) -> Mapping[str, int]:
    return {}


def _shut_doors(leaving: Leaving) -> None:
    """Its keys open nothing any more, also where one was looked at a moment ago."""
    keyed = any(leaving.rows.count_keys().values())
    leaving.rows.remove_keys()
    if keyed:
        time.sleep(KEYS_FORGOTTEN_S)  # the API tells nobody when it has forgotten one


def _stop_runs(leaving: Leaving) -> None:
    """Nobody works for the tenant any more, and nobody can begin to: its state has been `leaving` for long."""
    leaving.rows.end_jobs("its tenant leaves")
    leaving.prefect.stop_runs(leaving.runs_end_s)
    leaving.report("waiting until nobody works for it any more")
    for url in leaving.rows.urls():
        wait_until_still(url, leaving.tenant, leaving.leaver.use_cases, leaving.still_s)
    _stop_worker(leaving)


def _stop_worker(leaving: Leaving) -> None:
    """Takes the tenant's own worker out of supervision, where there is one."""
    from deployments.supervision.parts import WORKER
    from deployments.supervision.supervisor import connected

    supervisor, part = connected(leaving.platform.settings.home), f"{WORKER}{own_pool(leaving.tenant)}"
    if supervisor is not None and part in supervisor.states():
        supervisor.change([], [part])


def _bill(leaving: Leaving) -> None:
    """What it used is about to be forgotten."""
    from deployments.costs.invoices import last_invoices

    last_invoices(leaving.platform.cluster, leaving.tenant, leaving.by)


def _export(leaving: Leaving) -> None:
    from deployments.leaving.export import export

    # Rows go after this step: where they are gone, and all is done again, it was exported.
    if leaving.export_to is not None and leaving.tenant in leavers(leaving.platform.cluster):
        export(leaving.platform, leaving.tenant, leaving.export_to, leaving.by, leaving.report)


def _shut_out(leaving: Leaving) -> None:
    leaving.rows.remove_secrets()
    leaving.rows.shut_out()


def _count_registries(leaving: Leaving) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for uri in leaving.platform.registry_uris():
        for name, count in entries_of(uri, leaving.tenant).counts().items():
            found[name] = found.get(name, 0) + count
    return found


def _clear_registries(leaving: Leaving) -> None:
    for uri in leaving.platform.registry_uris():
        remove_entries(uri, leaving.tenant)


def _count_rights(leaving: Leaving) -> Mapping[str, int]:
    own = places(leaving.platform.settings, leaving.tenant, leaving.leaver.isolation).lake
    silo = leaving.leaver.isolation is Isolation.SILO and own.bucket is not None
    found = {"roles": own.role is not None, "buckets": silo}
    return {name: int(count) for name, count in found.items() if count}


def _remove_rights(leaving: Leaving) -> None:
    """The tenant's role in the object store; the bucket and the key of a silo."""
    for isolation in (Isolation.POOL, Isolation.SILO):
        remove(leaving.platform.settings, leaving.tenant, isolation)


def _redact(leaving: Leaving) -> None:
    leaving.files.redact_logs(leaving.subject)


def _count_details(leaving: Leaving) -> Mapping[str, int]:
    entries = Audit(leaving.platform.cluster).entries(leaving.tenant)
    return {"details of entries": int(entries["tenant"].notna().sum())}


def _forget(leaving: Leaving) -> None:
    Audit(leaving.platform.cluster).forget(leaving.tenant)


STEPS = (
    Step("access", lambda its: its.rows.count_keys(), _shut_doors),
    Step("runs", lambda its: {"open jobs": its.rows.open_jobs()}, _stop_runs),
    Step("last invoices", _nothing, _bill),
    Step(EXPORT, _nothing, _export),
    Step("secrets", lambda its: its.rows.count_secrets(), _shut_out),
    Step("prefect", lambda its: its.prefect.counts(), lambda its: its.prefect.remove()),
    Step("inbox", lambda its: its.files.count(its.files.inbox()), lambda its: its.files.remove(its.files.inbox())),
    Step(
        "work",
        lambda its: {"files and folders": len(its.files.work(its.rows.upload_ids()))},
        lambda its: its.files.remove_work(its.rows.upload_ids()),
    ),
    Step(
        "files",
        lambda its: its.files.count(its.files.lake()),
        lambda its: its.files.remove(its.files.lake()),
    ),
    Step("registries", _count_registries, _clear_registries),
    Step("storage rights", _count_rights, _remove_rights),
    Step("rows", lambda its: its.rows.count_rows(), lambda its: its.rows.remove_rows()),
    Step("login", lambda its: its.rows.count_logins(), lambda its: its.rows.remove_login()),
    Step("logs", lambda its: {"lines": its.files.count_log_lines()}, _redact),
    Step("audit", _count_details, _forget),
)
"""What can still work ends first; then what can be opened is closed; what others hang on is removed last."""
