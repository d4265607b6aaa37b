"""The two tenants of a proof: whose credentials are used, and who is attacked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, make_url, text

from infra.attacks.canary import CANARY, CANARY_USE_CASE, Canary, plant_files, plant_rows, remove_files, remove_rows
from infra.database.cluster import Cluster, connected_cluster, silo_database
from infra.database.connect import transact
from infra.database.operator import Operator
from infra.lake.files import LakeFiles
from infra.places import Places, places_of
from infra.scratch import scratch
from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tasks.domain.errors import InvalidDefinition
from tasks.domain.tenant import Isolation
from tasks.domain.use_case import UseCase

RELATIONS = text(
    """
    SELECT c.relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant'
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    ORDER BY c.relname
    """
)
"""Tables and views that have rows of tenants, those that nobody here knows of among them."""


@dataclass(frozen=True)
class Door:
    """The HTTP API: where it answers, and the attacker's own key. Without a key, there is no API to attack."""

    url: str
    key: str
    key_id: str


@dataclass(frozen=True)
class Scene:
    """What an attack has at hand.

    Attributes:
        attacker: the space of the attacking tenant, with its real credentials.
        victim: the other's. Attacks know its names; only the operator's checks act through it.
        mine, prey: what is planted at the attacker and at the victim.
        folder: a local folder of this proof.
        kept: what attacks make once and share.
        cleanup: undoes at the end what they have planted.
    """

    settings: Settings
    cluster: Cluster
    attacker: TenantSpace
    victim: TenantSpace
    mine: Canary
    prey: Canary
    folder: Path
    door: Door | None = None
    kept: dict[str, object] = field(default_factory=dict)
    cleanup: ExitStack = field(default_factory=ExitStack)

    @property
    def my_places(self) -> Places:
        """The attacker's folders, with the operator's credentials."""
        return places_of(self.settings, self.attacker.tenant)

    @property
    def prey_places(self) -> Places:
        """The victim's folders, with the operator's credentials."""
        return places_of(self.settings, self.victim.tenant)

    @property
    def use_case(self) -> UseCase:
        """A use case that both have for this proof: its table and its models are planted."""
        return CANARY_USE_CASE.model_copy(update={"id": f"{CANARY}-{self.prey.token[:8]}"})

    @property
    def prey_file(self) -> str:
        """Full path of the victim's planted file on the lake, in fsspec's words."""
        return f"{self.prey_places.lake.root}/{self.prey.path}"

    def leaked(self, found: object) -> bool:
        """Whether the victim's planted content is in it."""
        return self.prey.marker in (found.decode(errors="replace") if isinstance(found, bytes) else str(found))

    def names_victim(self, text: str) -> bool:
        """Whether the victim's id stands in it as a word of its own: digits of a digest may look like a short one."""
        return re.search(rf"(?<![\w-]){re.escape(self.victim.tenant.id)}(?![\w-])", text) is not None

    @cached_property
    def _prey_files(self) -> LakeFiles:
        return LakeFiles(self.prey_places.lake)

    def unharmed(self) -> bool:
        """Whether the victim's planted file is what it was; puts it back where it is not."""
        files = self._prey_files
        if files.exists(self.prey.path) and files.read(self.prey.path) == self.prey.content:
            return True
        files.write(self.prey.path, self.prey.content)
        return False

    @cached_property
    def doors(self) -> list[str]:
        """The attacker's login at every database that holds something of either tenant: the one that all share, the
        attacker's own, the victim's."""
        records = self.attacker.records
        urls = [records.shared_url or records.url, records.url]
        if self.victim.tenant.isolation is Isolation.SILO:
            urls.append(self.at(silo_database(self.victim.tenant.id)))
        return list(dict.fromkeys(urls))

    @property
    def shared_door(self) -> str:
        """The attacker's login at the database that all tenants share."""
        return self.doors[0]

    def at(self, database: str) -> str:
        """The attacker's login at some database of the cluster."""
        return make_url(self.attacker.records.url).set(database=database).render_as_string(hide_password=False)

    @cached_property
    def prey_rows(self) -> dict[str, dict[str, Any]]:
        """One row of the victim from each table and view that has any, as JSON has it."""
        return self._rows_of(self.victim.tenant.id)

    @cached_property
    def my_rows(self) -> dict[str, dict[str, Any]]:
        """The same of the attacker: who does not see its own rows has not been refused those of others."""
        return self._rows_of(self.attacker.tenant.id)

    def _rows_of(self, tenant: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for url in operator_urls(self.cluster, tenant):
            found |= transact(url, lambda connection: _rows(connection, tenant))
        return found


def _rows(connection: Connection, tenant: str) -> dict[str, dict[str, Any]]:
    rows = {}
    for name in connection.scalars(RELATIONS).all():
        query = f'SELECT to_jsonb(r) FROM "{name}" AS r WHERE r.tenant = :tenant LIMIT 1'  # noqa: S608  # from the catalogue
        if (row := connection.scalar(text(query), {"tenant": tenant})) is not None:
            rows[str(name)] = row
    return rows


def operator_urls(cluster: Cluster, tenant: str) -> list[str]:
    """The operator's login at every database that holds rows of the tenant."""
    return [url for silo, url in Operator(cluster).data_urls().items() if silo in (None, tenant)]


@contextmanager
def prepared(settings: Settings, attacker: str, victim: str, door: Door | None = None) -> Iterator[Scene]:
    """The scene, planted; whatever happens, the canaries are removed at the end. Raises `NotFound`,
    `InvalidDefinition`, and `Busy` where one of the two moves or leaves: nothing may be planted there then."""
    if attacker == victim:
        raise InvalidDefinition("a tenant cannot be attacked by itself", found=attacker, hint="name another --victim")
    cluster = connected_cluster(settings)
    spaces = open_space(settings, attacker), open_space(settings, victim)
    canaries = tuple(Canary(space.tenant.id, space.tenant.use_cases[0].id) for space in spaces)
    with scratch(settings.home / "scratch" / "work", "verify-isolation") as folder, ExitStack() as planted:
        for space in spaces:
            planted.enter_context(space.records.taking_in())
        for space, canary in zip(spaces, canaries, strict=True):
            places, urls = places_of(settings, space.tenant).all(), operator_urls(cluster, space.tenant.id)
            planted.callback(remove_rows, urls, canary)
            planted.callback(remove_files, places, canary)
            plant_rows(urls[-1], canary, urls[0])
            plant_files(places, canary)
        with ExitStack() as cleanup:  # before the canaries go
            yield Scene(
                settings, cluster, spaces[0], spaces[1], canaries[0], canaries[1], folder, door, cleanup=cleanup
            )
