"""Which earlier run a training run builds on, and where runs keep what later ones need."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from tasks import bundle
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Run, RunStatus
from tasks.domain.use_case import UseCase
from tasks.ports import Space
from tasks.training.champion import Champion
from tasks.training.plan import recipe
from tasks.training.tenant_wide import TenantWideModel


def folder_of_all(use_case: str) -> str:
    """Where the training runs of a use case have their folders, under the tenant's root."""
    return f"runs/{use_case}/training"


def folder(use_case: str, run_id: int) -> str:
    """Where a training run keeps its parts until they are a bundle."""
    return f"{folder_of_all(use_case)}/{run_id}"


def tenant_wide_path(use_case: str, run_id: int) -> str:
    """The file of a run's tenant-wide model; it stays, so that later runs can take it over."""
    return f"{folder(use_case, run_id)}/tenant-wide.parquet"


def upload_seq(partitions: pd.DataFrame) -> int:
    """Highest upload that a dataset version holds; `partitions` as `Table.partitions` gives them."""
    return 0 if partitions.empty else int(partitions[["last_upload", "last_labelled"]].to_numpy().max())


def latest_comparable(runs: Iterable[Run], use_case: UseCase, before: int | None = None) -> Run | None:
    """The newest training run with the same recipe that finished or was stopped; `runs` come newest first. Runs that
    looked back at an older dataset version do not count, nor do those whose models are not kept any more."""
    wanted = recipe(use_case)
    for run in runs:
        earlier = run.usable and (before is None or run.run_id < before)
        earlier = earlier and not (run.receipt.get("look_back") or run.receipt.get("removed"))
        if earlier and all(run.receipt.get(key) == value for key, value in wanted.items()):
            return run
    return None


def latest_run(runs: Iterable[Run]) -> Run | None:
    """The newest finished training run, of whatever recipe; `runs` come newest first."""
    return next((run for run in runs if run.status is RunStatus.FINISHED and not run.receipt.get("look_back")), None)


def previous_run(space: Space, run: Run) -> Run | None:
    """The run that this one may take models over from."""
    use_case = space.tenant.use_case(run.use_case)
    return latest_comparable(space.records.runs(run.use_case, Stage.TRAINING), use_case, before=run.run_id)


def seen_seq(space: Space, previous: Run) -> int:
    """Highest upload that a run had seen; -1 when an upload with a lower number was merged after it, because then
    numbers do not tell what is new and only the content does."""
    assert previous.dataset_version is not None
    seq = int(str(previous.receipt["upload_seq"]))
    late = any(
        upload.seq <= seq and (upload.dataset_version or 0) > previous.dataset_version
        for upload in space.records.uploads(previous.use_case)
    )
    return -1 if late else seq


def original_run(space: Space, use_case: UseCase, version: int) -> Run | None:
    """The first finished run of a dataset version and recipe: the one that a look back reproduces."""
    wanted = recipe(use_case)
    for earlier in reversed(space.records.runs(use_case.id, Stage.TRAINING)):
        same = earlier.status is RunStatus.FINISHED and earlier.dataset_version == version
        same = same and not earlier.receipt.get("removed")
        if same and all(earlier.receipt.get(key) == value for key, value in wanted.items()):
            return earlier
    return None


def bundle_run(run: Run) -> int:
    """The run whose bundle holds a finished run's models: itself, or an earlier one when nothing had changed."""
    return int(str(run.receipt["bundle_run"]))


def load_tenant_wide(space: Space, use_case: str, run_id: int) -> TenantWideModel:
    """The tenant-wide model that a run fitted or took over. Raises `NotFound`."""
    with space.files.local(tenant_wide_path(use_case, run_id)) as path:
        return TenantWideModel.from_bundle_rows(bundle.read_part(path))


def serving_champion(space: Space, use_case: UseCase) -> Champion | None:
    """What serves now, to be compared with on new rows; None without one, or when its contract is another."""
    serving = next((each for each in space.records.releases(use_case.id) if each.status == "champion"), None)
    if serving is None:
        return None
    trained = space.records.run(serving.training_run)
    if trained.receipt.get("contract_hash") != use_case.contract_hash():
        return None
    return Champion(space.registry.scorer(use_case.id, serving.version), serving.upload_seq)


@dataclass(frozen=True)
class Shared:
    """What all batches of a run need."""

    tenant_wide: TenantWideModel
    champion: Champion | None
    previous: Run | None

    def previous_rows(self, space: Space, batch: Batch) -> pd.DataFrame | None:
        """`PARTITION_MODEL` rows of the previous run for the partitions of a batch; None without one."""
        return None if self.previous is None else space.records.partition_models(self.previous, batch.partitions)


SHARED_RUNS = 4
_shared: dict[tuple[str, int], Shared] = {}
_loading = threading.Lock()


def shared_by_batches(space: Space, run: Run) -> Shared:
    """Loaded once per process and attempt of a run, for its batches. The URL tells apart runs of equal number."""
    key = (space.files.url(folder(run.use_case, run.run_id)), run.attempts)
    with _loading:
        if key not in _shared:
            _shared[key] = Shared(
                load_tenant_wide(space, run.use_case, run.run_id),
                serving_champion(space, space.tenant.use_case(run.use_case)),
                previous_run(space, run),
            )
            while len(_shared) > SHARED_RUNS:  # the oldest goes first
                del _shared[next(iter(_shared))]
        return _shared[key]


def quarantined_partitions(space: Space, use_case: str, version: int) -> set[str]:
    """Partitions that quarantined rows of history name, in uploads that a dataset version holds."""
    history = {each.upload_id for each in space.records.uploads(use_case) if each.purpose is Purpose.HISTORY}
    names: set[str] = set()
    for run in space.records.runs(use_case, Stage.INGESTION):
        if run.upload_id in history and int(str(run.receipt.get("dataset_version", version + 1))) <= version:
            found = run.receipt.get("quarantined_partitions")
            names.update(map(str, found) if isinstance(found, list) else ())
    return names
