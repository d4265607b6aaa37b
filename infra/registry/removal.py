"""Removing a tenant from a registry for good: MLflow itself only marks runs and experiments as deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from infra.registry.store import answering, client, patient

PAGE = 500


class Entries(NamedTuple):
    """What a registry has of a tenant; runs and experiments that are marked as deleted count too."""

    models: list[Any]
    versions: list[Any]
    experiments: list[Any]
    runs: list[Any]

    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {name: len(getattr(self, name)) for name in self._fields}


@patient
def entries_of(uri: str, tenant: str) -> Entries:
    """What the registry at that address has of the tenant: what bears its name, `{tenant}.{use_case}`."""
    from mlflow.entities import ViewType

    mlflow = client(uri)
    with answering(uri):
        named = f"name LIKE '{tenant}.%'"
        models = list(_paged(lambda token: mlflow.search_registered_models(named, PAGE, page_token=token)))
        versions = list(_paged(lambda token: mlflow.search_model_versions(named, PAGE, page_token=token)))
        experiments = list(_paged(lambda token: mlflow.search_experiments(ViewType.ALL, PAGE, named, page_token=token)))
        ids = [each.experiment_id for each in experiments]  # none are none, and not all
        runs = list(
            _paged(lambda token: mlflow.search_runs(ids, "", ViewType.ALL, PAGE, page_token=token)) if ids else ()
        )
    return Entries(models, versions, experiments, runs)


@patient
def remove_entries(uri: str, tenant: str) -> dict[str, int]:
    """Removes all of it. Returns what is left behind MLflow's HTTP API, which removes models, but marks runs and
    experiments as deleted: `mlflow gc` on its machine removes them."""
    from mlflow.entities import LifecycleStage

    mlflow, found = client(uri), entries_of(uri, tenant)
    with answering(uri):
        for model in found.models:
            mlflow.delete_registered_model(model.name)
        for run in found.runs:
            if run.info.lifecycle_stage == LifecycleStage.ACTIVE:
                mlflow.delete_run(run.info.run_id)
        for experiment in found.experiments:
            if experiment.lifecycle_stage == LifecycleStage.ACTIVE:
                mlflow.delete_experiment(experiment.experiment_id)
        if uri.startswith("http"):
            left = {"runs": len(found.runs), "experiments": len(found.experiments)}
            return {name: count for name, count in left.items() if count}
        store = mlflow._tracking_client.store
        for model_id in _logged_models(store, [experiment.experiment_id for experiment in found.experiments]):
            store._hard_delete_logged_model(model_id)
        for run in found.runs:
            store._hard_delete_run(run.info.run_id)
        for experiment in found.experiments:
            store._hard_delete_experiment(experiment.experiment_id)
    return {}


def _logged_models(store: Any, experiments: list[str]) -> list[str]:
    if not experiments:
        return []
    return [each.model_id for each in _paged(lambda token: store.search_logged_models(experiments, page_token=token))]


def _paged(page: Callable[[str | None], Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return
