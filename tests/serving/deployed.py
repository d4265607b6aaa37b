"""A release that serves, made without flows: registered, recorded, champion."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from deployments.onboarding import onboard
from deployments.platform import Platform
from infra.database.cluster import Cluster
from infra.registry import initialise_registry
from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tasks import bundle
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Release
from tasks.domain.tenant import Isolation, Tenant, Tier
from tasks.promotion.compose import Composed, release_rows
from tasks.scorer import row_keys
from tasks.scoring.predict import answer_rows
from tests.promotion import bundles

STORES = {0: "lightgbm", 1: "naive", 2: "lightgbm", 3: "tenant_wide"}


def onboarded(
    settings: Settings,
    cluster: Cluster,
    tenant: str,
    tier: Tier = Tier.STANDARD,
    isolation: Isolation | None = None,
    **online: float,
) -> TenantSpace:
    """A tenant with the use case of the small bundles."""
    platform = Platform(settings, cluster)
    for uri in platform.registry_uris():
        initialise_registry(uri)
    use_case = bundles.USE_CASE.model_copy(update={"online": bundles.USE_CASE.online.model_copy(update=online)})
    onboard(platform, Tenant(id=tenant, name=tenant, tier=tier, isolation=isolation, use_cases=(use_case,)))
    return open_space(settings, tenant)


def deploy(space: TenantSpace, folder: Path, run: int = 1, serves: bool = True) -> int:
    """Makes a release of one small bundle, and lets it serve; its version."""
    use_case = space.tenant.use_case("demand")
    made = bundles.make(folder / f"made-{run}", STORES, run, use_case=use_case)
    return record_release(space, "demand", made, run, serves)


def record_release(space: TenantSpace, use_case_id: str, made: Path, run: int, serves: bool = True) -> int:
    """Makes a release of a bundle, and lets it serve; its version."""
    use_case = space.tenant.use_case(use_case_id)
    entries = tuple(entry for name, entry in bundle.read_index(made).items() if name != "*")
    example = bundles.rows() if use_case_id == "demand" else pd.DataFrame(columns=list(use_case.contract.columns))
    version, source, digest = space.registry.add_release(use_case, made, key=f"key-{run}", tags={}, example=example)
    release = Release(
        version=version,
        use_case=use_case_id,
        training_run=run,
        dataset_version=run,
        upload_seq=run,
        status="challenger",
        source=source,
        digest=digest,
        partitions=len(entries),
        promoted=len(entries),
        held=0,
        created_at=datetime.now(UTC),
    )
    space.records.add_release(release, release_rows(Composed(made, digest, entries, {}), {}))
    if serves:
        space.registry.set_alias(use_case_id, "champion", version)
        space.records.set_champion(use_case_id, version)
    return version


def store_answers(space: TenantSpace, version: int) -> list[str]:
    """Lets batch scoring answer for the rows of store 0; their row keys."""
    use_case, scorer = space.tenant.use_case("demand"), space.registry.scorer("demand", version)
    space.records.add_upload("demand", Purpose.SCORING, "u1", "a.csv", 1, "aa")
    run = space.records.open_run(Stage.SCORING, "demand", "k", upload_id="u1", release_version=version)
    frame = bundles.rows(stores=1).assign(_partition="store=0")
    batch = Batch(run_id=run.run_id, number=1, bucket=0, partitions=("store=0",), rows=len(frame))
    space.records.plan(run, [batch])
    space.records.finish_scoring_batch(batch, answer_rows(frame, use_case, scorer))
    space.records.publish_scores(run, {})
    types = {name: column.type.value for name, column in use_case.contract.columns.items()}
    return row_keys(frame, use_case.contract.row_key, types).tolist()
