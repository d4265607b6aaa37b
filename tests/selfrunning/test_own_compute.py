"""Tenants with compute of their own: a pool and a worker that do nobody else's work; `orchard up` sees to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.moving import move
from deployments.supervision.up import up
from flows.dispatch import dispatch
from infra.database.audit import Actor
from infra.settings import Settings
from tasks.domain.tenant import Isolation, Tier
from tests.benchmarks.platform.running import small_tenant
from tests.selfrunning.conftest import Site

BY = Actor(who="operator:test", origin="test")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runs_go_to_the_tenants_own_pool(site: Site, tmp_path: Path) -> None:
    settings: Settings = site.running.settings
    for tenant, isolation in (("bridged", Isolation.BRIDGE), ("siloed", Isolation.SILO)):
        site.running.onboard(small_tenant(tenant, Tier.FREE).model_copy(update={"isolation": isolation}))
    site.tenant("pooled", Tier.FREE)
    assert up(settings)
    assert not up(settings)
    for tenant in ("bridged", "siloed"):
        assert site.pid(f"worker-tenant-{tenant}")
    for tenant, pool in (("bridged", "tenant-bridged"), ("siloed", "tenant-siloed"), ("pooled", "tier-free")):
        space = site.running.platform.open_space(tenant)
        folder = tmp_path / tenant
        folder.mkdir()
        site.hand_in(space, folder, 2)
        dispatch(settings)
        site.assert_all_is_well(space, 2)
        assert {job.pool for job in space.records.jobs()} == {pool}
        assert {job.tier for job in space.records.jobs()} == {"free"}
    for tenant in ("bridged", "siloed"):
        assert move(site.running.platform, tenant, Isolation.POOL, BY) is not None
    assert up(settings)
    assert not [name for name in site.supervisor.states() if name.startswith("worker-tenant-")]
    space = site.running.platform.open_space("siloed")
    site.hand_in(space, tmp_path / "siloed", 1, first=2)
    dispatch(settings)
    site.assert_all_is_well(space, 3)
    assert space.records.jobs(limit=1)[0].pool == "tier-free"
