"""`deployments/tiers.yaml`, the one place of tier limits."""

from __future__ import annotations

import itertools

from infra.definitions import load_tiers
from tasks.domain.tenant import Tier, TierPolicy


def test_every_tier_has_a_policy() -> None:
    assert set(load_tiers()) == set(Tier)


def test_a_higher_tier_never_has_less() -> None:
    tiers = load_tiers()
    for lower, higher in itertools.pairwise((Tier.FREE, Tier.STANDARD, Tier.PREMIUM)):
        for name in TierPolicy.model_fields:
            less, more = getattr(tiers[lower], name), getattr(tiers[higher], name)
            assert (more <= less) if name == "target_s" else (more >= less), (higher, name)


def test_no_tenant_may_have_more_runs_than_its_tier() -> None:
    for tier, policy in load_tiers().items():
        assert policy.runs_per_tenant <= policy.runs, tier
