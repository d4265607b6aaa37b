"""What a submitted run is labelled with, on a real Prefect server, and what workers make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.workers.process import ProcessJobConfiguration

from deployments.provision import _pools
from infra.database.cluster import connected_cluster
from infra.database.queue import Queue
from infra.definitions import load_tiers
from infra.settings import Settings
from infra.space import open_space
from tasks.domain.job import Job, JobKind, deployment_name
from tasks.domain.tenant import Tier
from tests.cli.shop import tenant_file
from tests.cli.terminal import Terminal


@pytest.fixture
def client(orchard: Terminal) -> Iterator[SyncPrefectClient]:
    """Prefect, with a pool as it is provisioned and one deployment in it."""
    with get_client(sync_client=True) as client:
        list(_pools(client, {"tier-premium": 2}))
        client.create_deployment(
            flow_id=client.create_flow_from_name(JobKind.REFRESH),
            name=deployment_name(JobKind.REFRESH, "tier-premium"),
            work_pool_name="tier-premium",
            entrypoint="flows.refresh.refresh",
            job_variables={"command": "python -m prefect.engine"},
            tags=["stage:refresh", "tier:premium"],
            enforce_parameter_schema=False,
        )
        yield client


@pytest.fixture
def job(orchard: Terminal, client: SyncPrefectClient, settings: Settings) -> Iterator[Job]:
    """A job of a premium tenant that dispatch has submitted."""
    orchard("tenants", "add", tenant_file(Path(), "labelled", tier="premium")).worked()
    orchard("run", "labelled", "sales", "--queue").worked()
    [job] = open_space(settings, "labelled").records.jobs()
    assert job.flow_run_id, job.error
    yield job
    Queue(connected_cluster(settings)).end(job, "this test is over")


def test_a_submitted_run_says_whose_it_is(job: Job, client: SyncPrefectClient) -> None:
    run = client.read_flow_run(UUID(job.flow_run_id))
    assert set(run.tags) == {"tenant:labelled", "use_case:sales", "stage:refresh", "tier:premium"}

    assert run.deployment_id is not None
    deployment = client.read_deployment(run.deployment_id)
    pool = client.read_work_pool("tier-premium")
    values = {**(deployment.job_variables or {}), **(run.job_variables or {})}
    configuration = asyncio.run(ProcessJobConfiguration.from_template_and_values(pool.base_job_template, values))
    configuration.prepare_for_flow_run(run)
    labels = {
        "orchard-tenant": "labelled", "orchard-use-case": "sales", "orchard-stage": "refresh", "orchard-tier": "premium"
    }  # fmt: skip
    assert configuration.labels.items() >= labels.items()
    variables = {
        "ORCHARD_TENANT": "labelled",
        "ORCHARD_USE_CASE": "sales",
        "ORCHARD_STAGE": "refresh",
        "ORCHARD_TIER": "premium",
        "ORCHARD_WORKERS": str(load_tiers()[Tier.PREMIUM].workers),
        "ORCHARD_MEMORY_MB": str(load_tiers()[Tier.PREMIUM].memory_mb),
    }
    assert configuration.env.items() >= variables.items()
