"""Which tier a tenant was in, and since when: what a month costs depends on it."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, literal, select

from infra.database.tables import table
from infra.database.usage_tables import MembershipRow
from tasks.domain.tenant import Tier

MEMBERSHIPS = table(MembershipRow)


def note_tier(connection: Connection, tenant: str, tier: Tier) -> None:
    """Notes the tier from now on, unless the tenant is in it already."""
    newest = (
        select(MEMBERSHIPS.c.tier)
        .where(MEMBERSHIPS.c.tenant == tenant)
        .order_by(MEMBERSHIPS.c.since.desc())
        .limit(1)
        .scalar_subquery()
    )
    changed = select(literal(tenant), func.now(), literal(tier.value)).where(func.coalesce(newest, "") != tier.value)
    connection.execute(insert(MEMBERSHIPS).from_select(["tenant", "since", "tier"], changed))
