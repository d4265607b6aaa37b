"""The group of attacks on the registries, and the entries that both tenants are given for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import make_url, text

from infra.attacks.attempt import Finding, Group, Lake, Run, unproven
from infra.attacks.canary import CANARY, CANARY_USE_CASE, STALE_S, Canary
from infra.attacks.scene import Scene
from infra.database.connect import transact
from infra.lake.files import LakeFiles
from infra.places import places_of
from infra.registry.model import code_digest
from infra.registry.registry import MlflowRegistry
from infra.registry.store import client
from infra.space import TenantSpace
from tasks import bundle
from tasks.domain.names import TENANT_WIDE, registered_model_name

GROUP = Group("registry")

ROWS = pd.DataFrame({"key": ["a", "b"], "x": [1.0, 2.0]})
ANSWER = {"mine": 1.0, "prey": 2.0}
"""What the naive rule of each tenant's planted model says."""


@dataclass(frozen=True)
class Planted:
    """What one tenant has in the registries for the time of a proof.

    Attributes:
        operator: its entries, as the operator reaches them.
        name: of its registered model, in both registries.
        version: of its release, which serves as champion.
        source: URL of the release's model.
        digest, code: of its bundle, and of the code that is run to load it.
        experiment, run: an experiment of MLflow's and a run in it.
    """

    operator: MlflowRegistry
    name: str
    version: int
    source: str
    digest: str
    code: str
    experiment: str
    run: str


@dataclass(frozen=True)
class Models:
    """The planted entries of attacker and victim."""

    mine: Planted
    prey: Planted


Act = Callable[[Scene, Models], Finding]


def with_models(act: Act) -> Run:
    """An attack that needs planted models; where the registries cannot hold any, it is unproven."""

    @wraps(act)
    def run(scene: Scene) -> Finding:
        if (why := _unreachable(scene)) is not None:
            return unproven(why)
        return act(scene, models_of(scene))

    return run


def add(name: str, what: str, act: Act, *, on: Lake | None = None) -> None:
    """Adds an attack that needs planted models."""
    GROUP.add(name, what, with_models(act), on=on)


def models_of(scene: Scene) -> Models:
    """The planted entries, made on first use."""
    found = scene.kept.get("models")
    if found is None:
        sides = ((scene.attacker, scene.mine, "mine"), (scene.victim, scene.prey, "prey"))
        found = Models(*(_plant(scene, *side) for side in sides))
        scene.kept["models"] = found
    assert isinstance(found, Models)
    return found


def operator_uris(scene: Scene) -> tuple[str, str]:
    """The registries' own logins."""
    return (
        scene.settings.training_registry_uri or scene.cluster.training_registry_url,
        scene.settings.production_registry_uri or scene.cluster.production_registry_url,
    )


def shares_login(scene: Scene) -> bool:
    """Whether all tenants reach the registries by one login, so that nothing but names keeps them apart there."""
    registry = scene.attacker.registry
    login = f"tenant_{scene.attacker.tenant.id}"
    return any(
        uri.startswith("http") or make_url(uri).username != login
        for uri in (registry.training_uri, registry.production_uri)
    )


def _unreachable(scene: Scene) -> str | None:
    ready = text("SELECT to_regclass('registered_models') IS NOT NULL AND to_regclass('experiments') IS NOT NULL")
    for uri in operator_uris(scene):
        if uri.startswith("http"):
            return "the registry is behind an MLflow server of its own, whose access is not Orchard's to prove"
        if not transact(uri, lambda connection: connection.scalar(ready)):
            return "the registry has no tables yet: nothing was trained so far"
    return None


def _plant(scene: Scene, space: TenantSpace, canary: Canary, whose: str) -> Planted:
    training, production = operator_uris(scene)
    places = places_of(scene.settings, space.tenant)
    operator = MlflowRegistry(
        space.tenant.id, space.tenant.tier.value, training, production,
        places.training_artifacts, places.production_artifacts,
    )  # fmt: skip
    use_case = scene.use_case.id
    name = registered_model_name(space.tenant.id, use_case)
    scene.cleanup.callback(remove_models, operator, use_case, canary)
    made = make_bundle(scene.folder / f"bundle-{whose}", space.tenant.id, ANSWER[whose])
    version, source, digest = release(operator, scene, made, canary.marker)
    operator.set_alias(use_case, "champion", version)
    tracker = client(training)
    tracker.create_registered_model(name, tags={"tenant": space.tenant.id})
    tracker.create_model_version(name, source=source, tags={"orchard.key": canary.marker, "digest": digest})
    experiment = tracker.create_experiment(f"{space.tenant.id}.{canary.marker}", tags={"tenant": space.tenant.id})
    run = tracker.create_run(experiment, tags={"secret": canary.marker}).info.run_id
    tracker.log_param(run, "secret", canary.marker)
    tracker.log_metric(run, "secret", ANSWER[whose])
    with operator.production.opened(source) as folder:
        code = code_digest(folder)
    return Planted(operator, name, version, source, digest, code, experiment, run)


def release(registry: MlflowRegistry, scene: Scene, made: Path, key: str) -> tuple[int, str, str]:
    """A bundle as a release of the planted model."""
    return registry.add_release(scene.use_case, made, key=key, tags={"secret": key}, example=ROWS)


def make_bundle(folder: Path, tenant: str, answer: float, **changes: object) -> Path:
    """A bundle of one row: the naive rule, or whatever the changes say."""
    row: dict[str, Any] = {
        "partition": TENANT_WIDE, "estimator": "naive", "spec": json.dumps({}), "model": None, "naive": [answer],
        "rows": 2, "metric": 1.0, "naive_metric": 1.0, "data_hash": "x", "source_run": 1,
    }  # fmt: skip
    part = folder.with_name(f"{folder.name}-parts") / "tenant-wide.parquet"
    bundle.write_part(part, [row | changes])
    bundle.assemble(folder, [part], use_case=CANARY_USE_CASE, tenant=tenant)
    return folder


CLEARING = (
    "DELETE FROM {} WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE experiment_id = :experiment)",
    "DELETE FROM {} WHERE experiment_id = :experiment",
)
OF_RUN, OF_EXPERIMENT = ("tags", "params", "metrics", "latest_metrics"), ("runs", "experiment_tags", "experiments")


def remove_models(registry: MlflowRegistry, use_case: str, canary: Canary) -> None:
    """Takes the planted entries away, and their files; MLflow itself would only mark the experiment as deleted. What a
    killed proof has left goes too."""
    own, stale_ms = registered_model_name(registry.tenant, use_case), 1000 * (time.time() - STALE_S)
    planted = f"name LIKE '{registered_model_name(registry.tenant, CANARY)}-%'"
    for uri in (registry.training_uri, registry.production_uri):
        for entry in client(uri).search_registered_models(planted):
            if entry.name == own or entry.creation_timestamp < stale_ms:
                client(uri).delete_registered_model(entry.name)
    found = client(registry.training_uri).get_experiment_by_name(f"{registry.tenant}.{canary.marker}")
    if found is not None:
        values = {"experiment": int(found.experiment_id)}
        statements = [CLEARING[0].format(table) for table in OF_RUN] + [CLEARING[1].format(t) for t in OF_EXPERIMENT]
        transact(registry.training_uri, lambda c: [c.execute(text(each), values) for each in statements])
    for place in (registry.training_artifacts, registry.production_artifacts):
        LakeFiles(place).delete(use_case)


@contextmanager
def forged_version(scene: Scene, models: Models, source: str) -> Iterator[int]:
    """A version of the attacker's model that says where its files are, with the digests of the victim's, as whoever
    writes the attacker's entries could say. In the training registry it goes by the key `forged`."""
    versions, planted = [], models.mine
    for uri in operator_uris(scene):
        mlflow = client(uri)
        digests = {"digest": models.prey.digest, "code_digest": models.prey.code}
        tags = {**digests, "orchard.key": f"forged-{scene.mine.marker}"}
        versions.append((mlflow, mlflow.create_model_version(planted.name, source=source, tags=tags).version))
    try:
        yield int(versions[1][1])
    finally:
        for mlflow, version in versions:
            mlflow.delete_model_version(planted.name, str(version))
