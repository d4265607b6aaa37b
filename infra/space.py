"""The space of one tenant: its folder on the lake, its database login, its registry names, and nothing else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from infra.database.cluster import connected_cluster
from infra.database.operator import Operator, records_of
from infra.database.records import PostgresRecords
from infra.definitions import load_tiers
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.lake.predictions import LakePredictions
from infra.lake.table import UseCaseTable
from infra.places import places_of
from infra.registry.registry import MlflowRegistry
from infra.scratch import scratch
from infra.settings import Settings
from infra.validation import ExpectationsValidator
from tasks.domain.run import Upload
from tasks.domain.tenant import Tenant, TierPolicy
from tasks.domain.use_case import UseCase
from tasks.personal import Pseudonyms


@dataclass(frozen=True)
class TenantSpace:
    """Implements `tasks.ports.Space`. It pickles, and connects on first use: threads, processes and machines may share
    it.

    In the database it has the tenant's own login. On the lake and in the registries it is confined to its folder
    and names, with the platform's credentials.
    """

    tenant: Tenant
    policy: TierPolicy
    location: Location
    records: PostgresRecords = field(repr=False)
    registry: MlflowRegistry = field(repr=False)
    pseudonyms: Pseudonyms = field(repr=False)
    scratch_folder: Path

    @cached_property
    def files(self) -> LakeFiles:
        return LakeFiles(self.location)

    @cached_property
    def _tables(self) -> dict[str, UseCaseTable]:
        return {}

    def table(self, use_case: UseCase) -> UseCaseTable:
        known = self._tables.get(use_case.id)  # kept, because a table remembers the versions that it has opened
        if known is None or known.use_case is not use_case:
            location = self.location.child("tables", use_case.id)
            known = self._tables[use_case.id] = UseCaseTable(
                location, use_case, self.scratch_folder, self.policy.workers
            )
        return known

    def predictions(self, use_case: UseCase) -> LakePredictions:
        return LakePredictions(self.location.child("predictions", use_case.id), use_case)

    def validator(self, use_case: UseCase, upload: Upload) -> ExpectationsValidator:
        return ExpectationsValidator(use_case, upload, self.files)

    def scratch(self, name: str) -> AbstractContextManager[Path]:
        return scratch(self.scratch_folder / "work", f"{self.tenant.id}-{name}")


def open_space(settings: Settings, tenant_id: str) -> TenantSpace:
    """The space of an onboarded tenant. Raises `NotFound`, `DatabaseUnavailable`."""
    cluster = connected_cluster(settings)
    tenant = Operator(cluster).tenant(tenant_id)
    places = places_of(settings, tenant)
    training_uri, production_uri = cluster.tenant_registry_urls(tenant.id)
    return TenantSpace(
        tenant=tenant,
        policy=load_tiers(settings.tiers_file)[tenant.tier],
        location=places.lake,
        records=records_of(cluster, tenant.id, tenant.isolation),
        registry=MlflowRegistry(
            tenant=tenant.id,
            tier=tenant.tier.value,
            training_uri=settings.training_registry_uri or training_uri,
            production_uri=settings.production_registry_uri or production_uri,
            training_artifacts=places.training_artifacts,
            production_artifacts=places.production_artifacts,
        ),
        pseudonyms=Operator(cluster).pseudonyms(tenant.id),
        scratch_folder=settings.home / "scratch",
    )
