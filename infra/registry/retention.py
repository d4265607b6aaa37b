"""Old entries of the registries, removed for good, and their files: MLflow itself only marks runs as deleted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from infra.lake.files import LakeFiles, stored_files
from infra.lake.location import Location
from infra.registry.store import answering, client, patient
from tasks.retention import StoredFile

PAGE = 500
KEY = "orchard.key"


class AgingEntries:
    """What is removed of a tenant's registry entries, as `tasks.retention.AgingRegistry`; their names and places are
    those of `MlflowRegistry`."""

    training_uri: str
    production_uri: str
    training_artifacts: Location
    production_artifacts: Location

    def _name(self, use_case: str) -> str:
        raise NotImplementedError

    def remove_candidates(
        self, use_case: str, keys: Collection[str], cutoff: datetime, dry_run: bool
    ) -> list[StoredFile]:
        """Runs and candidates of these keys, with their artifacts, and old artifacts that belong to none."""
        artifacts = self.training_artifacts.child(use_case)
        return remove_candidates(self.training_uri, self._name(use_case), artifacts, keys, cutoff, dry_run)

    def release_versions(self, use_case: str) -> dict[int, datetime]:
        """Versions of the production registry, and when they were made."""
        return release_versions(self.production_uri, self._name(use_case))

    def remove_releases(
        self, use_case: str, versions: Collection[int], cutoff: datetime, dry_run: bool
    ) -> list[StoredFile]:
        """These versions with their files, and old files that belong to none."""
        artifacts = self.production_artifacts.child(use_case)
        return remove_releases(self.production_uri, self._name(use_case), artifacts, versions, cutoff, dry_run)


@patient
def release_versions(uri: str, name: str) -> dict[int, datetime]:
    """Versions of an entry, and when they were made."""
    return {
        int(each.version): datetime.fromtimestamp(each.creation_timestamp / 1000, UTC) for each in _versions(uri, name)
    }


@patient
def remove_releases(
    uri: str, name: str, artifacts: Location, versions: Collection[int], cutoff: datetime, dry_run: bool
) -> list[StoredFile]:
    """Removes versions of an entry with their files, and old files that belong to none; returns the files."""
    known = {int(each.version): each.tags[KEY] for each in _versions(uri, name)}
    kept = {key for version, key in known.items() if version not in versions}
    gone = remove_folders(artifacts, kept, set(known.values()), cutoff, dry_run)
    if not dry_run:
        with answering(uri):
            for version in known.keys() & set(versions):
                client(uri).delete_model_version(name, str(version))
    return gone


@patient
def remove_candidates(
    uri: str, name: str, artifacts: Location, keys: Collection[str], cutoff: datetime, dry_run: bool
) -> list[StoredFile]:
    """Removes runs of an experiment, by their keys, with versions and artifacts, and old artifacts that belong to none;
    returns the files. Behind MLflow's HTTP API, runs are only marked as deleted."""
    from mlflow.entities import LifecycleStage

    mlflow, runs = client(uri), _runs(uri, name)
    old = [run for run in runs if run.data.tags.get(KEY) in keys]
    known = {run.info.run_id for run in runs}
    kept = known - {run.info.run_id for run in old}
    gone = remove_folders(artifacts, kept, known, cutoff, dry_run)
    if dry_run:
        return gone
    with answering(uri):
        for version in _versions(uri, name):
            if version.tags.get(KEY) in keys:
                mlflow.delete_model_version(name, version.version)
        for run in old:
            if run.info.lifecycle_stage == LifecycleStage.ACTIVE:
                mlflow.delete_run(run.info.run_id)
            if not uri.startswith("http"):
                mlflow._tracking_client.store._hard_delete_run(run.info.run_id)
    return gone


def remove_folders(
    location: Location, kept: Collection[str], known: Collection[str], cutoff: datetime, dry_run: bool
) -> list[StoredFile]:
    """Removes the folders that are known and not kept and, of those that are not known, the old ones: they were left
    over. Returns their files."""
    folders: dict[str, list[StoredFile]] = {}
    for file in stored_files(location):
        folders.setdefault(file.path.partition("/")[0], []).append(file)
    gone = [
        name
        for name, files in folders.items()
        if name not in kept and (name in known or max(file.modified for file in files) < cutoff)
    ]
    if not dry_run:
        for name in gone:
            LakeFiles(location).delete(name)
    return [file for name in gone for file in folders[name]]


def _versions(uri: str, name: str) -> list[Any]:
    with answering(uri):
        mlflow = client(uri)
        return list(_paged(lambda token: mlflow.search_model_versions(f"name = '{name}'", PAGE, page_token=token)))


def _runs(uri: str, name: str) -> list[Any]:
    """All runs of the use case's experiment, those that are marked as deleted among them."""
    from mlflow.entities import ViewType

    with answering(uri):
        mlflow = client(uri)
        if (experiment := mlflow.get_experiment_by_name(name)) is None:
            return []
        ids = [experiment.experiment_id]
        return list(_paged(lambda token: mlflow.search_runs(ids, "", ViewType.ALL, PAGE, page_token=token)))


def _paged(page: Callable[[str | None], Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return
