"""Makes Prefect match what is declared: pools and limits (tiers), deployments (prefect.yaml), automations (alerts)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deployments.alerts import provide_alerts
from infra.database.cluster import connected_cluster
from infra.database.operator import Operator
from infra.definitions import load_tiers
from infra.settings import Settings
from tasks.domain.errors import InvalidDefinition, Retryable
from tasks.domain.job import JobKind, deployment_name
from tasks.domain.labels import Label, prefect_tags
from tasks.domain.tenant import Tenant

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

OPERATIONS = "operations"
"""The pool of admission and dispatch: short runs that belong to no tenant, and must not wait for those that do."""

OPERATIONS_RUNS = 4
DEPLOYED = "orchard_deployments"
"""Prefect variable that remembers what was deployed last."""


def pool_limits(settings: Settings) -> dict[str, int]:
    """Every work pool, and how many runs it lets go at once."""
    tiers = load_tiers(settings.tiers_file)
    return {**{f"tier-{tier}": policy.runs for tier, policy in tiers.items()}, OPERATIONS: OPERATIONS_RUNS}


def own_pools(settings: Settings) -> dict[str, tuple[Tenant, int]]:
    """The work pools of tenants with compute of their own: whose each is, and how many runs it lets go at once."""
    tiers = load_tiers(settings.tiers_file)
    return {
        tenant.work_pool: (tenant, tiers[tenant.tier].runs_per_tenant)
        for tenant in Operator(connected_cluster(settings)).tenants()
        if tenant.own_compute
    }


def provision(settings: Settings) -> list[str]:
    """Brings Prefect's pools, deployments and automations up to date; returns what changed, a line each: nothing the
    second time. Prefect's address is that of the environment. Raises `InvalidDefinition`, `Retryable`."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        own = own_pools(settings)
        pools = {**pool_limits(settings), **{name: runs for name, (_, runs) in own.items()}}
        return [
            *_pools(client, pools),
            *_deployments(client),
            *_own_deployments(client, [tenant for tenant, _ in own.values()]),
            *provide_alerts(client, settings),
        ]


def _pools(client: SyncPrefectClient, pools: dict[str, int]) -> Iterator[str]:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    for name, runs in pools.items():
        try:
            pool = client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            whose, _, of = name.partition("-")
            described = {"tier": f"runs of {of} tenants", "tenant": f"runs of tenant {of} alone"}
            client.create_work_pool(
                WorkPoolCreate(
                    name=name,
                    type="process",
                    description=described.get(whose, "admission and dispatch"),
                    base_job_template=template,
                    concurrency_limit=runs,
                )
            )
            yield f"work pool {name}: new, {runs} runs at once"
            continue
        if pool.concurrency_limit != runs:
            client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=runs))
            yield f"work pool {name}: {pool.concurrency_limit} → {runs} runs at once"


def _deployments(client: SyncPrefectClient) -> Iterator[str]:
    """Runs `prefect deploy --all`, as an operator would, unless the same file was deployed by the same version."""
    from prefect.client.schemas.actions import VariableCreate, VariableUpdate

    file = Path(__file__).resolve().parents[1] / "prefect.yaml"
    if not file.is_file():
        raise InvalidDefinition("prefect.yaml is not beside the code", where=str(file), hint="deploy from a checkout")
    text = file.read_bytes()
    wanted = f"{hashlib.sha256(text).hexdigest()[:16]}-{version('orchard')}"
    content: dict[str, Any] = yaml.safe_load(text)
    names, known = {each["name"] for each in content["deployments"]}, _existing(client)
    remembered = client.read_variable_by_name(DEPLOYED)
    if remembered is not None and remembered.value == wanted and names <= known:
        return
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
        cwd=file.parent,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"},
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise Retryable("the deployments could not be made", found=(done.stdout + done.stderr)[-2500:], where=str(file))
    if remembered is None:
        client.create_variable(VariableCreate(name=DEPLOYED, value=wanted))
    else:
        client.update_variable(VariableUpdate(name=DEPLOYED, value=wanted))
    new = sorted(names - known)
    yield f"deployments: {len(names)} brought up to date" + (f", {len(new)} of them new" if new else "")


def _own_deployments(client: SyncPrefectClient, tenants: list[Tenant]) -> Iterator[str]:
    """The deployments of jobs once more for each tenant with compute of its own, pointed at its own pool."""
    known = _existing(client) if tenants else set()
    for tenant in tenants:
        wanted = {deployment_name(kind, tenant.work_pool): kind for kind in JobKind}
        for name, kind in wanted.items():
            if name in known:
                continue
            shared = client.read_deployment_by_name(f"{kind}/{deployment_name(kind, f'tier-{tenant.tier}')}")
            client.create_deployment(
                flow_id=shared.flow_id,
                name=name,
                work_pool_name=tenant.work_pool,
                entrypoint=shared.entrypoint,
                path=shared.path,
                description=f"{shared.description} This one is {tenant.id}'s own.",
                parameter_openapi_schema=shared.parameter_openapi_schema,
                pull_steps=shared.pull_steps,
                job_variables=shared.job_variables,
                tags=prefect_tags({Label.STAGE: kind, Label.TENANT: tenant.id}),  # the tier is each run's: it changes
            )
        if new := sorted(wanted.keys() - known):
            yield f"deployments of {tenant.id}: {len(new)} new"


def _existing(client: SyncPrefectClient) -> set[str]:
    """Names of the deployments that Prefect has."""
    from prefect.client.schemas.sorting import DeploymentSort

    names: set[str] = set()
    while page := client.read_deployments(limit=200, sort=DeploymentSort.NAME_ASC, offset=len(names)):
        names |= {each.name for each in page}
    return names
