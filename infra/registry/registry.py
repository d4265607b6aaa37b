"""`Registry` on MLflow: where one tenant's bundles are logged, registered, released and found again.

Training writes to the training registry; `add_release` and the aliases, and nothing else, write to the
production registry. Both know a use case under the one name `{tenant}.{use_case}`. A call that was killed is
repeated with the same key and finds, or replaces, what it left.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from infra.lake.location import Location
from infra.registry import model
from infra.registry.artifacts import Artifacts
from infra.registry.retention import AgingEntries
from infra.registry.store import (
    add_artifact,
    answering,
    client,
    log_values,
    patient,
)
from tasks.bundle import digest_of, verify
from tasks.domain.errors import GateFailed, InvalidDefinition, NotFound, Tampered
from tasks.domain.labels import Label
from tasks.domain.names import TenantId, UseCaseId, registered_model_name
from tasks.domain.run import Run
from tasks.domain.use_case import UseCase
from tasks.scorer import Scorer

_NAMES: TypeAdapter[tuple[str, str]] = TypeAdapter(tuple[TenantId, UseCaseId])
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_MODEL = "model"  # folder of the bundle model among a training run's artifacts


@dataclass(frozen=True)
class MlflowRegistry(AgingEntries):
    """One tenant's names in both registries. Holds only addresses, so it pickles; connects on first use.

    Attributes:
        training_uri, production_uri: SQLAlchemy database URLs (or http addresses of MLflow servers).
        training_artifacts, production_artifacts: the tenant's own folders of files.
    """

    tenant: str
    tier: str
    training_uri: str = field(repr=False)
    production_uri: str = field(repr=False)
    training_artifacts: Location
    production_artifacts: Location

    @property
    def training(self) -> Artifacts:
        """The tenant's files in the training registry."""
        return Artifacts(self.training_artifacts)

    @property
    def production(self) -> Artifacts:
        """The tenant's files in the production registry."""
        return Artifacts(self.production_artifacts)

    @patient
    def log_training(
        self,
        use_case: UseCase,
        run: Run,
        bundle: Path,
        *,
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        example: pd.DataFrame,
        artifacts: Mapping[str, Path],
    ) -> str:
        """Logs one MLflow run with the bundle as its model, and registers that as a candidate; returns its
        version.

        `artifacts`: files or folders by their path among the run's artifacts, such as `plots/error.png`. A
        second call for the same run returns the first one's version; an MLflow run that was left unfinished
        is set aside.
        """
        name = self._name(use_case.id)
        mlflow = client(self.training_uri)
        with answering(self.training_uri):
            if (version := self._version_of(mlflow, name, run.outcome_key)) is not None:
                return str(version.version)
            experiment = self._experiment(mlflow, name, use_case.id)
            self._set_aside(mlflow, experiment, run.outcome_key)
            started_ms = int(run.started_at.timestamp() * 1000)
            logged = mlflow.create_run(
                experiment,
                start_time=started_ms,
                run_name=f"training-{run.run_id}",
                tags={**tags, "orchard.run_id": str(run.run_id), "orchard.key": run.outcome_key},
            )
            log_values(mlflow, logged.info.run_id, params, metrics, started_ms)
            with self.training.building(logged.info.artifact_uri) as folder:
                model.save(folder / _MODEL, bundle, use_case, example)
                for path, source in artifacts.items():
                    add_artifact(source, folder / path)
            mlflow.set_terminated(logged.info.run_id, "FINISHED")
            self._register(mlflow, name, use_case)
            version = mlflow.create_model_version(
                name,
                source=f"{logged.info.artifact_uri}/{_MODEL}",
                run_id=logged.info.run_id,
                tags={
                    **tags,
                    "run_id": str(run.run_id),
                    "orchard.key": run.outcome_key,
                    "digest": digest_of(bundle),
                },
            )
            return str(version.version)

    @patient
    def fetch_candidate(self, use_case: str, run: Run, into: Path) -> Path:
        """The bundle folder of a training run, checked against its digests; where the artifact root is local,
        the folder itself, not to be written to, else a download under `into`. Raises `NotFound`,
        `Tampered`."""
        name = self._name(use_case)
        with answering(self.training_uri):
            version = self._version_of(client(self.training_uri), name, run.outcome_key)
        if version is None:
            raise NotFound(f"training run {run.run_id} of {name} has no candidate", hint="orchard run")
        folder = self.training.fetched(version.source, into) / model.BUNDLE
        verify(folder, version.tags["digest"])
        return folder

    @patient
    def add_release(
        self, use_case: UseCase, bundle: Path, *, key: str, tags: Mapping[str, str], example: pd.DataFrame
    ) -> tuple[int, str, str]:
        """Puts a self-contained bundle into the production registry: (version, source URL, manifest digest).
        A second call with the same key returns the first one's."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"a release's key becomes a folder name; expected letters, digits, - and _: {key!r}")
        if self.production_uri.startswith("http") and self.production_artifacts.local is not None:
            raise InvalidDefinition(
                "MLflow's server refuses releases whose files are on a local disk",
                expected="an s3:// root for releases, or a database URL for the production registry",
                found=self.production_artifacts.url,
                hint="set ORCHARD_PRODUCTION_ARTIFACTS_URL or ORCHARD_PRODUCTION_REGISTRY_URI",
            )
        name = self._name(use_case.id)
        mlflow = client(self.production_uri)
        with answering(self.production_uri):
            version = self._version_of(mlflow, name, key)
            if version is None or not self._is_ours(version):
                source = self.production_artifacts.child(use_case.id, key).url
                with self.production.building(source) as folder:
                    model.save(folder / _MODEL, bundle, use_case, example)
                    code = model.code_digest(folder / _MODEL)
                self._register(mlflow, name, use_case)
                # Without a run id: the run is in the other registry, and a release must not lean on it.
                version = mlflow.create_model_version(
                    name,
                    source=f"{source}/{_MODEL}",
                    tags={**tags, "orchard.key": key, "digest": digest_of(bundle), "code_digest": code},
                )
        return int(version.version), version.source, version.tags["digest"]

    def try_release(self, use_case: str, version: int, rows: pd.DataFrame) -> pd.DataFrame:
        """Loads a release through `mlflow.pyfunc`, as its users do, and predicts; one answer per row, with
        its index. Raises `Tampered` when a file is not what was released, `GateFailed` when it does not load
        or answer."""
        released = self.release(use_case, version)
        with self.production.opened(released.source) as folder:
            verify(folder / model.BUNDLE, released.tags["digest"])
            model.verify_code(folder, released.tags.get("code_digest"))  # loading runs it
            try:
                loaded = model.load(folder)
                # MLflow warns of columns that the signature does not have: the table has more than models need.
                answers = loaded.predict(rows[loaded.metadata.get_input_schema().input_names()])
            except Exception as error:
                raise _failed(released, "a prediction per row", f"{type(error).__name__}: {error}") from error
            if len(answers) != len(rows) or not answers.index.equals(rows.index):
                raise _failed(released, f"{len(rows)} answers", f"{len(answers)}, or another index")
            if unanswered := model.unanswered(folder, rows, answers):
                raise _failed(released, "finite predictions", f"{unanswered} of {len(rows)} rows without one")
        return answers  # type: ignore[no-any-return]

    @patient
    def set_alias(self, use_case: str, alias: str, version: int) -> None:
        """Moves an alias in the production registry; raises `NotFound` when there is no such version."""
        name = self._name(use_case)
        with answering(self.production_uri, f"release {version} of {name}"):
            client(self.production_uri).set_registered_model_alias(name, alias, str(version))

    @patient
    def remove_alias(self, use_case: str, alias: str) -> None:
        """Removes an alias; nothing happens where there is none."""
        with suppress(NotFound), answering(self.production_uri):
            client(self.production_uri).delete_registered_model_alias(self._name(use_case), alias)

    @patient
    def find(self, use_case: str, alias: str) -> int | None:
        """The version behind an alias, the entry being found by its tags; None where there is none."""
        name = self._name(use_case)
        with answering(self.production_uri):
            entries = client(self.production_uri).search_registered_models(
                f"tags.tenant = '{self.tenant}' AND tags.use_case = '{use_case}'"
            )
        # Tags can be edited by hand; the name is what makes an entry this tenant's.
        aliases: dict[str, str] = next((entry.aliases for entry in entries if entry.name == name), {})
        return int(aliases[alias]) if alias in aliases else None

    def check_release(self, use_case: str, version: int) -> None:
        """Checks a release's files against its digests; all bytes are read. Raises `Tampered`, `NotFound`."""
        with self.open_release(use_case, version):
            pass

    def scorer(self, use_case: str, version: int) -> Scorer:
        """The release's scorer, opened once per process; threads share it. `check_release` checks the
        files."""
        with _opening:
            return _scorer(self, use_case, version)

    def open_release(self, use_case: str, version: int) -> AbstractContextManager[Path]:
        """A local folder with the release's bundle, checked against its digests. Raises `Tampered`,
        `NotFound`."""
        return self._open_release(use_case, version)

    @contextmanager
    def _open_release(self, use_case: str, version: int) -> Iterator[Path]:
        released = self.release(use_case, version)
        with self.production.opened(released.source) as folder:
            verify(folder / model.BUNDLE, released.tags["digest"])
            yield folder / model.BUNDLE

    @patient
    def release(self, use_case: str, version: int) -> Any:
        """MLflow's `ModelVersion` of a release. Raises `NotFound`."""
        name = self._name(use_case)
        with answering(self.production_uri, f"release {version} of {name}"):
            return client(self.production_uri).get_model_version(name, str(version))

    def _is_ours(self, released: Any) -> bool:
        """Whether a release that is there already runs the code of this version: another version may have made it, or
        somebody who knew its key beforehand."""
        try:
            with self.production.opened(released.source) as folder:
                return model.foreign_code(folder) is None
        except (NotFound, Tampered):
            return False

    def _name(self, use_case: str) -> str:
        """The registry name; refuses a use case that could make it another tenant's, or part of another
        path."""
        return registered_model_name(*_NAMES.validate_python((self.tenant, use_case)))

    def _experiment(self, mlflow: Any, name: str, use_case: str) -> str:
        if (found := mlflow.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        location = self.training_artifacts.child(use_case).url
        tags = {Label.TENANT.value: self.tenant, Label.USE_CASE.value: use_case}
        return str(mlflow.create_experiment(name, artifact_location=location, tags=tags))

    def _register(self, mlflow: Any, name: str, use_case: UseCase) -> None:
        """Makes the entry of the use case, or brings its tags up to date (a tenant may have changed its
        tier)."""
        tags = {
            Label.TENANT.value: self.tenant,
            Label.TIER.value: self.tier,
            Label.USE_CASE.value: use_case.id,
            "kind": use_case.kind.value,
            "sharing": "tenant",
        }
        entries = mlflow.search_registered_models(f"name = '{name}'")
        if not entries:
            mlflow.create_registered_model(name, tags=tags, description=use_case.description or None)
            return
        for tag, value in tags.items():
            if entries[0].tags.get(tag) != value:
                mlflow.set_registered_model_tag(name, tag, value)

    def _set_aside(self, mlflow: Any, experiment: str, key: str) -> None:
        """Deletes what killed attempts under this key have logged; none of it was registered."""
        for run in mlflow.search_runs([experiment], f"tags.`orchard.key` = '{key}'"):
            mlflow.delete_run(run.info.run_id)
            self.training.remove(run.info.artifact_uri.rpartition("/")[0])

    @staticmethod
    def _version_of(mlflow: Any, name: str, key: str) -> Any | None:
        """The version that was made under this key."""
        found = mlflow.search_model_versions(f"name = '{name}' AND tags.`orchard.key` = '{key}'")
        return found[0] if found else None


_opening = threading.Lock()


@lru_cache(maxsize=16)
def _scorer(registry: MlflowRegistry, use_case: str, version: int) -> Scorer:
    """A release never changes, so its scorer can be kept; a download lives as long as its scorer."""
    source = registry.release(use_case, version).source
    scratch = Path(tempfile.mkdtemp(prefix="orchard-release-"))
    try:
        opened_there = Scorer.open(registry.production.fetched(source, scratch) / model.BUNDLE)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    weakref.finalize(opened_there, shutil.rmtree, scratch, ignore_errors=True)
    return opened_there


def _failed(released: Any, expected: str, found: str) -> GateFailed:
    return GateFailed(
        f"release {released.version} of {released.name} failed its trial",
        expected=expected,
        found=found,
        where=released.source,
        hint="the champion stays; train again, or look at the release's files",
    )
