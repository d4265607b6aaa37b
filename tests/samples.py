"""Sample definitions that tests share."""

from __future__ import annotations

from typing import Any

from infra.database.audit import Actor, Audit, Witness
from infra.database.cluster import Cluster
from tasks.domain.tenant import Tenant, Tier
from tasks.domain.use_case import UseCase

SALES: dict[str, Any] = {
    "id": "sales",
    "description": "daily sales of an article in a shop",
    "kind": "regression",
    "contract": {
        "columns": {
            "store": {"type": "integer", "min": 1},
            "sku": {"type": "integer", "min": 1},
            "day": {"type": "date"},
            "price": {"type": "number", "min": 0},
            "promo": {"type": "boolean"},
            "color": {"type": "string", "nullable": True},
            "sales": {"type": "number"},
        },
        "row_key": ["store", "sku", "day"],
    },
    "derived": {"weekday": {"as": "date_part", "from": "day", "part": "weekday"}},
    "partition_by": ["store", "sku"],
    "target": "sales",
    "time": "day",
    "features": {"numeric": ["price", "promo"], "categorical": ["color", "weekday"]},
}


def sales_use_case(**changes: Any) -> UseCase:
    """A small regression: partitions (store, sku), rows (store, sku, day), target sales."""
    return UseCase.model_validate(SALES | changes)


def sample_tenant(tenant_id: str = "acme", *use_cases: UseCase, tier: Tier = Tier.STANDARD) -> Tenant:
    """A tenant with the given use cases, by default the small regression."""
    return Tenant(id=tenant_id, name=tenant_id.title(), tier=tier, use_cases=use_cases or (sales_use_case(),))


def witness(cluster: Cluster) -> Witness:
    """The audit of what a test does."""
    return Witness(Audit(cluster), Actor(who="test", origin="test"))
