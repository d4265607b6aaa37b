"""What of a tenant is still there, everywhere: what is left on purpose, and what must not be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import make_url

from deployments.leaving.certificate import Rest
from deployments.leaving.orchestration import EVENT_TABLES
from deployments.leaving.steps import Leaving
from infra.database.audit import Audit
from infra.database.cluster import SERVICES
from infra.database.erasures import ERASURES
from infra.database.invoices import INVOICES
from infra.database.operator import Operator
from infra.database.search import Hit, databases, search_database
from infra.isolation.keys import WAIT_DAYS
from infra.places import places
from infra.registry.removal import entries_of
from tasks.domain.tenant import Isolation

VACUUM = timedelta(hours=1)
"""So often Prefect's server removes events that are too old."""

EVENT_PLACES = {f"prefect: table {name}" for name in EVENT_TABLES}

INVOICES_PLACE = f"orchard: table {INVOICES.name}"


class Findings(NamedTuple):
    """What a search came to. `searched` says where it looked."""

    hits: list[Hit]
    rests: list[Rest]
    searched: list[str]


def search(leaving: Leaving) -> Findings:
    """Looks through every database, registry, folder and bucket of the platform, and through Prefect."""
    hits: list[Hit] = []
    searched: list[str] = []
    for name, url in _databases(leaving):
        found = search_database(url, name, leaving.files.mentions)
        hits += [hit for hit in found if hit.where != f"{name}: table {ERASURES.name}"]  # it names it until it is over
        searched.append(
            f"database {name}: every column that can hold text, the names of logins and tables; rows of other tenants"
            " for its id alone"
        )
    rests = [_events(leaving, hit) for hit in hits if hit.where in EVENT_PLACES]
    rests += [_invoices(hit) for hit in hits if hit.where == INVOICES_PLACE]
    hits = [hit for hit in hits if hit.where not in (*EVENT_PLACES, INVOICES_PLACE)]
    hits += [Hit(f"Prefect: {name}", count) for name, count in leaving.prefect.counts().items()]
    searched.append("Prefect: runs, artifacts, deployments, work pools, blocks, variables, limits, automations")
    for uri in leaving.platform.registry_uris():
        entries = entries_of(uri, leaving.tenant).counts()
        found, left = _of_registry(uri, {name: count for name, count in entries.items() if count})
        hits, rests = hits + found, rests + left
        searched.append(f"model registry {uri if uri.startswith('http') else make_url(uri).database}")
    hits += leaving.files.search()
    searched.append("lake, artifacts, inbox, silos: every path; the home folder: every path, every line of its logs")
    return Findings(hits, rests, searched)


def audit_left(leaving: Leaving) -> Rest:
    """The entries of the audit that say what happened, and not to whom."""
    entries = Audit(leaving.platform.cluster).entries(leaving.tenant)
    return Rest(
        what="entries of the audit, under the pseudonym alone",
        count=len(entries),
        why="they prove that nothing in the audit was changed; their details are erased",
    )


def _databases(leaving: Leaving) -> Iterator[tuple[str, str]]:
    """The shared database, those of silos, those of Prefect and MLflow: whatever the settings say now, they may have
    been used."""
    settings, cluster = leaving.platform.settings, leaving.platform.cluster
    for silo, url in Operator(cluster).data_urls().items():
        yield (f"of silo {silo}" if silo else "orchard"), url
    present = databases(cluster)
    urls = (
        cluster.prefect_url.replace("+asyncpg", "+psycopg"),
        cluster.training_registry_url,
        cluster.production_registry_url,
    )
    yield from ((name, url) for name, url in zip(SERVICES, urls, strict=True) if name in present)
    for uri in (settings.training_registry_uri, settings.production_registry_uri):
        if uri is not None and uri.startswith("postgresql"):
            yield f"{make_url(uri).database} at {make_url(uri).host}", uri


def key_left(leaving: Leaving) -> list[Rest]:
    """The key of a silo, which nobody can use any more, and which the object store ends after a while."""
    settings = leaving.platform.settings
    encrypted = places(settings, leaving.tenant, Isolation.SILO).lake.role is not None and settings.storage.silo_keys
    if leaving.leaver.isolation is not Isolation.SILO or not encrypted:
        return []
    until = datetime.now(UTC) + timedelta(days=WAIT_DAYS)
    why = "disabled; the object store ends it then, and until then its description names the tenant"
    return [Rest(what="KMS key of the silo", count=1, until=until, why=why)]


def _events(leaving: Leaving, hit: Hit) -> Rest:
    kept = leaving.prefect.events_kept()
    return Rest(
        what=f"server events of Prefect ({hit.where.removeprefix('prefect: ')})",
        count=hit.times,
        until=None if kept is None else datetime.now(UTC) + kept + VACUUM,
        why="the server removes them when their retention ends",
    )


def _invoices(hit: Hit) -> Rest:
    return Rest(
        what="invoices",
        count=hit.times,
        why="accounts must be kept; they name the tenant and what it paid, and nothing of its data",
    )


def _of_registry(uri: str, entries: dict[str, int]) -> tuple[list[Hit], list[Rest]]:
    """Behind MLflow's HTTP API, runs and experiments can only be marked as deleted."""
    if not uri.startswith("http"):
        return [Hit(f"registry: {name}", count) for name, count in entries.items()], []
    marked = {name: count for name, count in entries.items() if name in ("runs", "experiments")}
    hits = [Hit(f"registry {uri}: {name}", count) for name, count in entries.items() if name not in marked]
    why = "marked as deleted; `mlflow gc` on that server's machine removes them for good"
    return hits, [Rest(what=f"{name} of the registry {uri}", count=count, why=why) for name, count in marked.items()]
