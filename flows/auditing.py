"""What runs tell the audit. Only flows do: a task has a tenant's login, and that reaches no audit."""

from __future__ import annotations

from infra.database.audit import Actor, Audit, Witness
from infra.database.cluster import connected_cluster
from infra.settings import Settings, load_settings
from infra.space import TenantSpace


def witness(who: str, settings: Settings | None = None) -> Witness:
    """The audit of what a run does, or of what it does for `who`."""
    return Witness(Audit(connected_cluster(settings or load_settings())), Actor(who=who, origin="flow"))


def tell_promotion(space: TenantSpace, use_case: str, version: int, training_run: int) -> None:
    """A release serves, or waits for approval. A promotion that is repeated tells it once, and one that was cut off
    before this is repeated."""
    witness("run:promotion").record(
        "release.promote",
        "done",
        tenant=space.tenant.id,
        once=f"promote/{space.tenant.id}/{use_case}/{version}",
        use_case=use_case,
        release=version,
        training_run=training_run,
        alias="champion" if space.registry.find(use_case, "champion") == version else "challenger",
    )
