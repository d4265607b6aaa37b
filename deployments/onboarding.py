"""Onboarding a tenant: what must not change, and the provisioning itself."""

from __future__ import annotations

from deployments.platform import Platform
from infra.database.operator import Operator
from tasks.domain.errors import InvalidDefinition, NotFound
from tasks.domain.tenant import Tenant


def onboard(platform: Platform, tenant: Tenant) -> list[str]:
    """Provisions a tenant: login, tables' parts, names. Returns what changed, a line each; nothing the second time.

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
        for field in ("kind", "partition_by", "target"):
            if getattr(after, field) != getattr(use_case, field):
                raise InvalidDefinition(
                    f"{field} of use case {use_case.id!r} cannot change: stored rows are laid out by it",
                    expected=str(getattr(use_case, field)),
                    found=str(getattr(after, field)),
                    hint="declare a new use case instead",
                )
        for name, column in use_case.contract.columns.items():
            changed = after.contract.columns.get(name)
            if changed is not None and changed.type is not column.type:
                raise InvalidDefinition(
                    f"the type of column {name!r} of use case {use_case.id!r} cannot change: stored rows have it",
                    expected=column.type.value,
                    found=changed.type.value,
                    hint="declare a new column, or a new use case",
                )
        if after.contract.row_key != use_case.contract.row_key:
            raise InvalidDefinition(
                f"row_key of use case {use_case.id!r} cannot change: stored rows are known by it",
                hint="declare a new use case instead",
            )
    return operator.onboard(tenant)
