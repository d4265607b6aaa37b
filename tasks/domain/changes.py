"""What another definition of a tenant changes, in words for whoever has to agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.domain.tenant import Tenant


def changes_of(before: Tenant | None, after: Tenant) -> list[str]:
    """A line per field that differs, such as `demand.gate.max_regression: 0.05 → 0.1`; none where nothing does. All is
    new where there was no tenant before."""
    if before is None:
        return [f"tenant {after.id}: new", *(f"use case {use_case.id}: new" for use_case in after.use_cases)]
    old, new = _flat(before), _flat(after)
    lines = []
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name):
            lines.append(f"{name}: {old.get(name, 'nothing')} → {new.get(name, 'nothing')}")
    if not lines and before.model_dump_json(exclude={"isolation"}) != after.model_dump_json(exclude={"isolation"}):
        lines.append("order of use cases or columns")
    return lines


def _flat(tenant: Tenant) -> dict[str, object]:
    fields: dict[str, Any] = {"name": tenant.name, "tier": tenant.tier.value}
    for use_case in tenant.use_cases:
        fields[use_case.id] = use_case.model_dump(mode="json", by_alias=True, exclude={"id"})
    return dict(_leaves("", fields))


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value
