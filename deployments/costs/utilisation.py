"""How much of slots and of this machine is in use, so that tiers can be sized."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from infra.database.cluster import Cluster
from infra.database.consumption import Consumption
from infra.database.slots import busy_slots
from infra.definitions import load_tiers
from infra.settings import Settings
from tasks.domain.months import Span
from tasks.domain.prices import HOUR_S
from tasks.domain.tenant import Tier


class Slots(NamedTuple):
    """A work pool: how many runs it may have at once, and how much of that was used."""

    pool: str
    tier: str
    slots: int
    jobs: int
    busy_share: float
    waited_median_s: float
    waited_95_s: float


class Share(NamedTuple):
    """Who used how much CPU, as a share of what the machine's cores could have given."""

    who: str
    cpu_hours: float
    share: float


def slots(settings: Settings, cluster: Cluster, since: timedelta) -> list[Slots]:
    """One per work pool that had a job."""
    end = datetime.now(UTC)
    tiers = load_tiers(settings.tiers_file)
    found = []
    for row in busy_slots(cluster, end - since, end).to_dict("records"):
        policy = tiers[Tier(row["tier"])]
        count = policy.runs if row["pool"].startswith("tier-") else policy.runs_per_tenant
        share = row["busy_s"] / (count * since.total_seconds())
        found.append(
            Slots(row["pool"], row["tier"], count, row["jobs"], round(share, 4), row["waited_s"], row["waited_95_s"])
        )
    return found


def machine(cluster: Cluster, since: timedelta) -> list[Share]:
    """Tenants' finished work, what was wasted, and each part that serves all; then what was left idle. Parts of the
    platform that run on other machines count against this one's cores too."""
    end = datetime.now(UTC)
    span, consumption = Span(end - since, end), Consumption(cluster)
    used, overhead = consumption.used([span]), consumption.overhead([span])
    spent = {"tenants": float(used["cpu_s"].sum()), "waste": float(used["waste_s"].sum())}
    spent |= {f"overhead: {row['part']}": row["cpu_s"] for row in overhead.to_dict("records")}
    whole = span.seconds * (os.cpu_count() or 1)
    spent["idle"] = max(0.0, whole - sum(spent.values()))
    return [Share(who, seconds / HOUR_S, seconds / whole) for who, seconds in spent.items()]
