"""The proof: which tenant attacks which, all attempts, and what is to be said of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from flows.attacks import api, events, inbox, uploads
from infra.attacks import caches, names, registry, sql, storage
from infra.attacks.attempt import Attack, Attempt, Lake, Outcome
from infra.attacks.scene import Door, prepared
from infra.database.audit import SOMEBODY, Actor, Audit
from infra.database.cluster import connected_cluster
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.contract import Frozen
from tasks.domain.errors import InvalidDefinition
from tasks.domain.tenant import Isolation, Tenant, TenantState

GROUPS = (
    storage.GROUP, sql.GROUP, registry.GROUP, api.GROUP, events.GROUP, inbox.GROUP, uploads.GROUP, caches.GROUP,
    names.GROUP,
)  # fmt: skip

OTHERS = 20
"""Of the tenants that are not attacked in full, so many are attacked quickly; each day others."""

KEY_LIFE = timedelta(hours=2)
"""A proof that was killed cannot take its key back."""

Progress = Callable[[Attempt], None]


class Bout(NamedTuple):
    """One tenant against another: with everything, or with what is quick; the first of several also with what is the
    same for all."""

    attacker: Tenant
    victim: Tenant
    quick: bool
    first: bool = True

    def attacks(self, settings: Settings) -> list[Attack]:
        """What is tried."""
        everything = (attack for group in GROUPS for attack in group if attack.on in (None, lake_of(settings)))
        return [each for each in everything if (each.quick or not self.quick) and (self.first or not each.once)]


class Proof(Frozen):
    """What came of it. Whoever proves nothing, because there is nobody to attack, says so in `note`."""

    started_at: datetime
    seconds: float
    attempts: tuple[Attempt, ...]
    note: str = ""

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many attempts had each outcome."""
        found = Counter(attempt.outcome for attempt in self.attempts)
        return {outcome: found[outcome] for outcome in Outcome}

    @property
    def got_through(self) -> list[Attempt]:
        """The attempts that count against it."""
        return [attempt for attempt in self.attempts if attempt.got_through]

    @property
    def holds(self) -> bool:
        """Whether no attempt got through."""
        return not self.got_through

    @property
    def distinct(self) -> int:
        """How many different attacks there were, however often each was tried."""
        return len({(attempt.group, attempt.name) for attempt in self.attempts})

    def summary(self) -> str:
        """The counts in words."""
        said = ", ".join(f"{count:,} {outcome}" for outcome, count in self.counts.items())
        return f"{self.distinct:,} attacks in {len(self.attempts):,} attempts: {said}"


def lake_of(settings: Settings) -> Lake:
    """The kind of lake that there is."""
    return "s3" if settings.lake_url.startswith("s3://") else "local"


def bouts(
    tenants: Sequence[Tenant], attacker: str | None, victim: str | None, *, quick: bool = False, turn: int = 0
) -> list[Bout]:
    """Who attacks whom: the attacker one tenant in full and others quickly; without one, a tenant of each way of
    isolation does so. `turn` says whose turn it is where not everybody has one. Raises `InvalidDefinition`."""
    if len(tenants) < 2:
        return []
    known = {tenant.id: tenant for tenant in tenants}
    groups = [[known[attacker]]] if attacker is not None else _by_isolation(tenants)
    chosen = [_of_turn(group, turn) for group in groups]
    found: list[Bout] = []
    for each in chosen:
        others = [tenant for tenant in tenants if tenant.id != each.id]
        if victim == each.id:
            raise InvalidDefinition("a tenant cannot be attacked by itself", found=victim, hint="another --victim")
        prey = known[victim] if victim is not None else _of_turn(others, turn)
        found.append(Bout(each, prey, quick, first=not found))
        rest = [] if victim is not None else [tenant for tenant in others if tenant.id != prey.id]
        start = turn * OTHERS % len(rest) if len(rest) > OTHERS else 0
        found += [Bout(each, tenant, True, first=False) for tenant in (rest[start:] + rest[:start])[:OTHERS]]
    return found


def _by_isolation(tenants: Sequence[Tenant]) -> list[list[Tenant]]:
    groups = [[tenant for tenant in tenants if tenant.isolation is isolation] for isolation in Isolation]
    return [group for group in groups if group]


def _of_turn(tenants: Sequence[Tenant], turn: int) -> Tenant:
    return tenants[turn % len(tenants)]


def prove(
    settings: Settings,
    attacker: str | None = None,
    victim: str | None = None,
    *,
    quick: bool = False,
    api_url: str | None = None,
    by: Actor = SOMEBODY,
    progress: Progress = lambda _: None,
    planned: Callable[[int], None] = lambda _: None,
) -> Proof:
    """Attacks, and audits that it did. `planned` hears how many attempts there will be, `progress` of each. Raises
    `NotFound`, `InvalidDefinition`, and `Busy` where one that is named moves or leaves."""
    started_at, started = datetime.now(UTC), time.monotonic()
    cluster = connected_cluster(settings)
    operator = Operator(cluster)
    known = {tenant.id: tenant for tenant in operator.tenants(TenantState.ACTIVE)}
    for name in (attacker, victim):
        if name is not None:
            known[name] = operator.tenant(name)  # raises `NotFound`
    tenants = [known[name] for name in sorted(known)]
    chosen = bouts(tenants, attacker, victim, quick=quick, turn=started_at.toordinal())
    planned(sum(len(bout.attacks(settings)) for bout in chosen))
    attempts: list[Attempt] = []
    for bout in chosen:
        with (
            door_of(Keys(cluster, by), bout.attacker.id, api_url) as door,
            prepared(settings, bout.attacker.id, bout.victim.id, door) as scene,
        ):
            for attack in bout.attacks(settings):
                attempts.append(attack.attempt(scene))
                progress(attempts[-1])
    note = "" if chosen else "there is nobody to attack: a proof needs two tenants"
    proof = Proof(
        started_at=started_at, seconds=round(time.monotonic() - started, 1), attempts=tuple(attempts), note=note
    )
    if chosen:
        counts = {outcome.value: count for outcome, count in proof.counts.items()}
        Audit(cluster).record(
            "isolation.verified",
            "done" if proof.holds else "failed",
            by=by,
            tenant=attacker,
            quick=quick,
            counts=counts,
        )
    return proof


@contextmanager
def door_of(keys: Keys, tenant: str, url: str | None) -> Iterator[Door | None]:
    """The API with a key of the attacker's own, which is taken back at the end."""
    if url is None:
        yield None
        return
    key_id, key = keys.create(tenant, "verify-isolation", Role.ADMIN, KEY_LIFE)
    try:
        yield Door(url.rstrip("/"), key, key_id)
    finally:
        keys.revoke(tenant, key_id)
