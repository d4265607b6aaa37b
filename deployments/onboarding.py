"""Onboarding a tenant: what must not change, and the provisioning itself."""

from __future__ import annotations

from deployments.platform import Platform
from infra.database.audit import SOMEBODY, Actor
from infra.database.erasures import Erasures
from infra.database.operator import Operator
from infra.definitions import load_tiers
from infra.isolation.roles import provide
from tasks.domain.errors import InvalidDefinition, NotFound
from tasks.domain.tenant import Tenant


def onboard(platform: Platform, tenant: Tenant, by: Actor = SOMEBODY) -> list[str]:
    """Provisions a tenant: storage, login, rows, names. Returns what changed, a line each; nothing the second time.

    Raises `InvalidDefinition` for a change that its stored data cannot follow.
    """
    operator = Operator(platform.cluster, by)
    if Erasures(platform.cluster).unfinished(tenant.id) is not None:
        raise InvalidDefinition(
            f"tenant {tenant.id!r} is being erased", hint=f"orchard tenants erase {tenant.id} goes on with it"
        )
    try:
        before = operator.tenant(tenant.id)
    except NotFound:
        before = None
    # Those that are switched off too: their rows are kept, and they may come back.
    known = [*before.use_cases, *operator.former_use_cases(tenant.id)] if before else []
    for use_case in known:
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
            if changed is not None and changed.personal is not column.personal:
                raise InvalidDefinition(
                    f"whether column {name!r} of use case {use_case.id!r} is personal cannot change: "
                    "stored rows were treated that way",
                    expected=str(column.personal or "not personal"),
                    found=str(changed.personal or "not personal"),
                    hint="declare a new use case, and hand its history in again",
                )
        if after.contract.row_key != use_case.contract.row_key:
            raise InvalidDefinition(
                f"row_key of use case {use_case.id!r} cannot change: stored rows are known by it",
                hint="declare a new use case instead",
            )
    if before is not None and tenant.isolation not in (None, before.isolation):
        raise InvalidDefinition(
            f"isolation of tenant {tenant.id!r} cannot change here: its data has to move",
            expected=str(before.isolation),
            found=str(tenant.isolation),
            hint=f"orchard tenants move {tenant.id} --to {tenant.isolation}",
        )
    by_tier = load_tiers(platform.settings.tiers_file)[tenant.tier].isolation
    isolated = tenant.model_copy(update={"isolation": tenant.isolation or by_tier})
    return provide(platform.settings, isolated) + operator.onboard(isolated)
