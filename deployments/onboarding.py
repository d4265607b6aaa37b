"""Onboarding a tenant: what changes, and the provisioning itself."""

from __future__ import annotations

import json

from deployments.platform import Platform
from infra.database.operator import Operator
from tasks.domain.errors import InvalidDefinition, NotFound
from tasks.domain.tenant import Tenant


def changes_of(platform: Platform, tenant: Tenant) -> list[str]:
    """What applying this definition would change, a line each; empty for a new or an equal one."""
    try:
        before = Operator(platform.cluster).tenant(tenant.id)
    except NotFound:
        return []
    old, new = (flat(version.model_dump(mode="json", by_alias=True)) for version in (before, tenant))
    return [
        f"{path}: {old.get(path, '(not there)')} → {new.get(path, '(removed)')}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def onboard(platform: Platform, tenant: Tenant) -> bool:
    """Provisions a tenant: login, tables' parts, names; returns whether it is new. Safe to call again.

    Raises `InvalidDefinition` for a change that its stored data cannot follow.
    """
    operator = Operator(platform.cluster)
    try:
        before = operator.tenant(tenant.id)
    except NotFound:
        before = None
    for use_case in before.use_cases if before else ():
        after = next((candidate for candidate in tenant.use_cases if candidate.id == use_case.id), None)
        if after is None:
            continue
        for field in ("kind", "partition_by"):
            if getattr(after, field) != getattr(use_case, field):
                raise InvalidDefinition(
                    f"{field} of use case {use_case.id!r} cannot change: stored rows are laid out by it",
                    expected=str(getattr(use_case, field)),
                    found=str(getattr(after, field)),
                    hint="declare a new use case instead",
                )
        if after.contract.row_key != use_case.contract.row_key:
            raise InvalidDefinition(
                f"row_key of use case {use_case.id!r} cannot change: stored rows are known by it",
                hint="declare a new use case instead",
            )
    operator.onboard(tenant)
    return before is None


def flat(value: object, path: str = "") -> dict[str, str]:
    """Leaves of nested mappings and lists by their dotted path, as JSON text."""
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}" if path else str(key)).items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        named = {str(item.get("id", place)): item for place, item in enumerate(value)}
        return flat(named, path)
    return {path: json.dumps(value, ensure_ascii=False)}
