"""A tenant and its tier."""

from __future__ import annotations

from enum import StrEnum

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


class TierPolicy(Frozen):
    """Limits of a tier; `deployments/tiers.yaml` holds one per tier."""

    workers: int = Field(ge=1, description="threads of one run")
    max_batches: int = Field(default=200, ge=1, description="mapped tasks of one run, at most")
    max_upload_bytes: int = Field(ge=1)
    runs: int = Field(ge=1, description="concurrent runs of the tier (its work pool's limit)")
    runs_per_tenant: int = Field(default=1, ge=1)


class Tenant(Frozen):
    """One customer of the operator: one YAML file."""

    id: TenantId
    name: str = Field(min_length=1, max_length=200)
    tier: Tier
    use_cases: tuple[UseCase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _use_cases_are_distinct(self) -> Tenant:
        ids = [use_case.id for use_case in self.use_cases]
        for use_case in ids:
            if ids.count(use_case) > 1:
                raise ValueError(f"use case {use_case!r} is declared twice")
        return self

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
