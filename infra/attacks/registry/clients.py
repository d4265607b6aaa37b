"""MLflow's own client with the attacker's login: what it finds, and what it may write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.registry.group import Models, add, shares_login
from infra.attacks.scene import Scene
from infra.registry.store import client

SHARED = "all tenants reach this registry by one login; names alone keep them apart there"
REFUSALS = ("row-level security", "InsufficientPrivilege", "permission denied")


class Words(NamedTuple):
    """What attacks say to a client: names of the victim's and, beside them, of the attacker's own."""

    run: str
    experiment: str
    experiment_name: str
    model: str
    forged: str
    my_experiment: str
    my_model: str
    my_source: str
    tenant: str


Arguments = Callable[[Words], tuple[object, ...]]

TRAINING: dict[str, tuple[str, str, Arguments]] = {
    "run": ("reads a run", "get_run", lambda say: (say.run,)),
    "metrics": ("reads the course of a metric", "get_metric_history", lambda say: (say.run, "secret")),
    "artifacts": ("lists the artifacts of a run", "list_artifacts", lambda say: (say.run,)),
    "experiment": ("reads an experiment", "get_experiment", lambda say: (say.experiment,)),
    "experiment-name": ("finds an experiment", "get_experiment_by_name", lambda say: (say.experiment_name,)),
    "search-runs": ("searches the runs of an experiment", "search_runs", lambda say: ([say.experiment],)),
    "search-experiments": ("searches all experiments", "search_experiments", lambda _: ()),
    "log-param": ("writes a parameter into a run", "log_param", lambda say: (say.run, "mine", "x")),
    "log-metric": ("writes a metric into a run", "log_metric", lambda say: (say.run, "mine", 1.0)),
    "tag-run": ("tags a run", "set_tag", lambda say: (say.run, "mine", "x")),
    "end-run": ("ends a run", "set_terminated", lambda say: (say.run, "KILLED")),
    "delete-run": ("deletes a run", "delete_run", lambda say: (say.run,)),
    "run-in-experiment": ("begins a run in an experiment", "create_run", lambda say: (say.experiment,)),
    "tag-experiment": ("tags an experiment", "set_experiment_tag", lambda say: (say.experiment, "mine", "x")),
    "delete-experiment": ("deletes an experiment", "delete_experiment", lambda say: (say.experiment,)),
    "rename-experiment": (
        "renames its own experiment to one",
        "rename_experiment",
        lambda say: (say.my_experiment, say.forged),
    ),
    "forge-experiment": ("makes an experiment in its name", "create_experiment", lambda say: (say.forged,)),
}
"""What is tried on a run or an experiment of the victim."""

PRODUCTION: dict[str, tuple[str, str, Arguments]] = {
    "model": ("reads a model", "get_registered_model", lambda say: (say.model,)),
    "version": ("reads a version", "get_model_version", lambda say: (say.model, "1")),
    "by-alias": ("finds the champion", "get_model_version_by_alias", lambda say: (say.model, "champion")),
    "address": ("asks where files are", "get_model_version_download_uri", lambda say: (say.model, "1")),
    "search-models": ("searches all models", "search_registered_models", lambda _: ()),
    "search-versions": ("searches all versions", "search_model_versions", lambda _: ()),
    "search-tags": (
        "searches models by tag",
        "search_registered_models",
        lambda say: (f"tags.tenant = '{say.tenant}'",),
    ),
    "move-alias": ("moves the champion", "set_registered_model_alias", lambda say: (say.model, "champion", "1")),
    "drop-alias": ("removes the champion", "delete_registered_model_alias", lambda say: (say.model, "champion")),
    "tag-model": ("tags a model", "set_registered_model_tag", lambda say: (say.model, "tenant", "x")),
    "tag-version": ("tags a version", "set_model_version_tag", lambda say: (say.model, "1", "digest", "x")),
    "add-version": ("adds a version to a model", "create_model_version", lambda say: (say.model, say.my_source)),
    "forge-model": ("makes a model in its name", "create_registered_model", lambda say: (say.forged,)),
    "rename-model": ("renames its own model to one", "rename_registered_model", lambda say: (say.my_model, say.forged)),
    "delete-version": ("deletes a version", "delete_model_version", lambda say: (say.model, "1")),
    "delete-model": ("deletes a model", "delete_registered_model", lambda say: (say.model,)),
}
"""What is tried on a registered model of the victim."""


def _words(scene: Scene, models: Models) -> Words:
    victim = scene.victim.tenant.id
    return Words(
        run=models.prey.run,
        experiment=models.prey.experiment,
        experiment_name=f"{victim}.{scene.prey.marker}",
        model=models.prey.name,
        forged=f"{victim}.{scene.use_case.id}-forged",
        my_experiment=models.mine.experiment,
        my_model=models.mine.name,
        my_source=models.mine.source,
        tenant=victim,
    )


def _used(method: str, arguments: Arguments, production: bool, scene: Scene, models: Models) -> Finding:
    """Denied when MLflow finds no such thing, the database refuses it, or what comes back holds nothing of the
    victim's."""
    from mlflow.exceptions import MlflowException

    if shares_login(scene):
        return unproven(SHARED)
    registry = scene.attacker.registry
    mlflow = client(registry.production_uri if production else registry.training_uri)
    try:
        found = getattr(mlflow, method)(*arguments(_words(scene, models)))
    except MlflowException as error:
        text = str(error)
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" and not any(sign in text for sign in REFUSALS):
            raise
        return denied(f"{error.error_code}: {text}")
    shown = _shown(found)
    if found is None or (isinstance(found, list) and not scene.names_victim(shown) and not scene.leaked(shown)):
        return denied("it finds nothing of the victim's")
    return succeeded(f"it went through, and returned a {type(found).__name__}")


def _shown(found: object) -> str:
    return str(
        [dict(each) if hasattr(each, "__iter__") else each for each in found] if isinstance(found, list) else found
    )


for _production, _attempts in ((False, TRAINING), (True, PRODUCTION)):
    for _name, (_what, _method, _arguments) in _attempts.items():
        add(
            f"mlflow-{_name}",
            f"{_what} of the victim with MLflow's client",
            partial(_used, _method, _arguments, _production),
        )
