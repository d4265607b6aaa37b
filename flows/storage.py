"""What every tenant keeps, and where: read every hour, because storage is paid for by the month."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from prefect import flow

from infra.database.cluster import connected_cluster
from infra.database.handover import all_use_cases
from infra.database.operator import Operator
from infra.database.storage_readings import Stored, database_bytes, record_stored
from infra.lake.files import stored_files
from infra.settings import Settings, load_settings
from infra.space import TenantSpace, open_space
from tasks.domain.errors import OrchardError, Retryable
from tasks.domain.tenant import TenantState
from tasks.retention import StoredFile

logger = logging.getLogger(__name__)

OF_NO_USE_CASE = ""


def read_storage(settings: Settings, tenants: Iterable[str] | None = None) -> list[Stored]:
    """Reads and stores what tenants keep, all of them or some. One that cannot be read keeps no other from its turn;
    at the end, `Retryable` is raised for it."""
    cluster, failed, found = connected_cluster(settings), 0, []
    names = [each.id for each in Operator(cluster).tenants(TenantState.ACTIVE)] if tenants is None else list(tenants)
    for name in names:
        try:
            kept = list(_kept(open_space(settings, name)))
            record_stored(cluster, kept)
            found += kept
        except OrchardError as error:
            failed += 1
            logger.warning("what %s keeps is not known: %s", name, error)
    if failed:
        raise Retryable(
            f"what {failed} of {len(names)} tenants keep is not known", hint="see the log; it is read again"
        )
    return found


def _kept(space: TenantSpace) -> Iterator[Stored]:
    registry = space.registry
    # Those that are switched off too: what they keep stays theirs, and is not counted once more as nobody's.
    known = {use_case.id for use_case in all_use_cases(space.records.url, space.tenant.id)}
    places = {
        "lake": [space.location],
        "models": [registry.training_artifacts, registry.production_artifacts],
    }
    for place, locations in places.items():
        sizes = Counter(dict.fromkeys({*known, OF_NO_USE_CASE}, 0))
        for location in locations:
            for file in stored_files(location):
                sizes[_use_case_of(file, known)] += file.size_bytes
        yield from (Stored(space.tenant.id, use_case, place, size) for use_case, size in sizes.items())
    for use_case, size in database_bytes(space.records.url, space.tenant.id).items():
        yield Stored(space.tenant.id, use_case, "database", size)


def _use_case_of(file: StoredFile, known: set[str]) -> str:
    """Folders of use cases are the first or the second level, by what is in them."""
    return next((name for name in file.path.split("/")[:2] if name in known), OF_NO_USE_CASE)


@flow(name="storage", flow_run_name="storage", persist_result=False)
def storage() -> int:
    """Reads what every tenant keeps on the lake, in the registries and in the database. Triggered every hour.

    Returns the bytes in all.
    """
    return sum(each.bytes for each in read_storage(load_settings()))
