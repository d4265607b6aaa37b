"""A tenant and its tier."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field, model_validator

from tasks.domain.contract import Frozen
from tasks.domain.errors import NotFound
from tasks.domain.names import TenantId
from tasks.domain.use_case import UseCase


class Tier(StrEnum):
    """Subscription level."""

    FREE = "free"
    STANDARD = "standard"
    PREMIUM = "premium"


class Membership(NamedTuple):
    """From when on a tenant is in a tier."""

    since: datetime
    tier: Tier


class Isolation(StrEnum):
    """How a tenant is kept apart from the others. The same flows run in all three.

    `pool`: a prefix of the shared storage, rows under row-level security in shared tables, the tier's workers.
    `bridge`: storage and tables as in `pool`, and a work pool of its own.
    `silo`: a bucket (or root folder), a database, a work pool and an encryption key of its own.
    """

    POOL = "pool"
    BRIDGE = "bridge"
    SILO = "silo"


class TenantState(StrEnum):
    """Whether work is taken in: `moving` to another isolation it waits, `leaving` it is refused."""

    ACTIVE = "active"
    MOVING = "moving"
    LEAVING = "leaving"


class TierPolicy(Frozen):
    """Limits of a tier; `deployments/tiers.yaml` holds one per tier."""

    workers: int = Field(ge=1, description="threads of one run")
    max_batches: int = Field(default=200, ge=1, description="mapped tasks of one run, at most")
    max_upload_bytes: int = Field(ge=1)
    runs: int = Field(ge=1, description="concurrent runs of the tier (its work pool's limit)")
    runs_per_tenant: int = Field(default=1, ge=1)
    memory_mb: int = Field(default=4096, ge=256, description="of one run, whatever it works on")
    memory_mb_per_upload_mb: float = Field(default=0.0, ge=0, description="and so much more per MB of its upload")
    isolation: Isolation = Field(default=Isolation.POOL, description="of its tenants that do not say otherwise")
    requests_per_s: float = Field(
        default=100.0, gt=0, description="online requests of one tenant; twice as many at once"
    )
    request_bytes: int = Field(default=5_000_000, ge=1, description="of one online request, at most")
    request_rows: int = Field(default=1_000, ge=1, description="of one online request, at most")
    memory_share: float = Field(default=0.3, gt=0, le=1, description="of the memory for models that answer online")
    target_s: int = Field(default=60, ge=1, description="aim, from an upload's arrival to its predictions")
    retention_days: int = Field(default=365, ge=1, description="how long old versions are kept")

    def run_memory_mb(self, upload_bytes: int) -> int:
        """Memory that a run gets for an upload of that size."""
        return self.memory_mb + round(self.memory_mb_per_upload_mb * upload_bytes / 1e6)


class Tenant(Frozen):
    """One customer of the operator: one YAML file."""

    id: TenantId
    name: str = Field(min_length=1, max_length=200)
    tier: Tier
    isolation: Isolation | None = Field(
        default=None, description="None: the tier's. An onboarded tenant has the one where its data is"
    )
    use_cases: tuple[UseCase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _use_cases_are_distinct(self) -> Tenant:
        ids = [use_case.id for use_case in self.use_cases]
        for use_case in ids:
            if ids.count(use_case) > 1:
                raise ValueError(f"use case {use_case!r} is declared twice")
        return self

    @property
    def own_compute(self) -> bool:
        """Whether its runs go to a work pool of its own."""
        return self.isolation in (Isolation.BRIDGE, Isolation.SILO)

    @property
    def work_pool(self) -> str:
        """Where its runs go."""
        return own_pool(self.id) if self.own_compute else f"tier-{self.tier}"

    def use_case(self, use_case_id: str) -> UseCase:
        """The use case of that id. Raises `NotFound`, naming those that exist."""
        for use_case in self.use_cases:
            if use_case.id == use_case_id:
                return use_case
        raise NotFound(
            f"tenant {self.id!r} has no use case {use_case_id!r}",
            expected=", ".join(use_case.id for use_case in self.use_cases),
            found=use_case_id,
            hint=f"orchard tenants show {self.id}",
        )


def own_pool(tenant: str) -> str:
    """Name of the work pool of a tenant with compute of its own."""
    return f"tenant-{tenant}"
