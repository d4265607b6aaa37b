"""Tenants that attack one another: in every way of isolation, on a local lake and on S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from deployments.verification import api_of
from flows.attacks.suite import door_of, lake_of
from infra.attacks.attempt import Attempt, Group
from infra.attacks.scene import Scene, prepared
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.registry import initialise_registry
from infra.settings import Settings
from tasks.domain.tenant import Isolation, Tenant
from tests.samples import sales_use_case, sample_tenant

MakeScene = Callable[..., AbstractContextManager[Scene]]


@pytest.fixture(scope="package")
def registries(postgres: Cluster) -> None:
    """MLflow's tables, and tenants' rows among them."""
    for uri in (postgres.training_registry_url, postgres.production_registry_url):
        initialise_registry(uri)


def tenant_of(name: str, isolation: Isolation = Isolation.POOL) -> Tenant:
    """A tenant that has a use case of that name beside the sample one."""
    use_cases = sales_use_case(), sales_use_case(id=f"only-{name}"[:40].rstrip("-"))
    return sample_tenant(name, *use_cases).model_copy(update={"isolation": isolation})


@pytest.fixture(scope="package")
def scene(settings: Settings, postgres: Cluster, operator: Operator, registries: None) -> MakeScene:
    """Prepares the attacker `anna-...` and the victim `bert-...`; with `api`, an API answers."""

    @contextmanager
    def make(
        attacker: Isolation = Isolation.POOL, victim: Isolation = Isolation.POOL, *, api: bool = False
    ) -> Iterator[Scene]:
        names = f"anna-{attacker}", f"bert-{victim}"
        for name, isolation in zip(names, (attacker, victim), strict=True):
            operator.onboard(tenant_of(name, isolation))
        if not api:
            with prepared(settings, *names) as found:
                yield found
            return
        with (
            api_of(settings) as url,
            door_of(Keys(postgres), names[0], url) as door,
            prepared(settings, *names, door) as found,
        ):
            yield found

    return make


def attempts_of(scene: Scene, *groups: Group) -> list[Attempt]:
    """All that is tried on such a lake, in order."""
    lake = lake_of(scene.settings)
    return [attack.attempt(scene) for group in groups for attack in group if attack.on in (None, lake)]


def attempt_of(scene: Scene, group: Group, name: str) -> Attempt:
    """One attempt."""
    return next(attack for attack in group if attack.name == name).attempt(scene)
