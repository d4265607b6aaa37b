"""What training leaves behind: runs that nothing builds on, with their candidates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from tasks.domain.names import Stage
from tasks.domain.retention import Horizon, Removed
from tasks.domain.run import Run
from tasks.domain.use_case import UseCase
from tasks.retention import AgingSpace, StoredFile, kept_releases, oldest_needed
from tasks.training.lineage import bundle_run, folder_of_all, latest_run


def removable(runs: Sequence[Run], oldest_version: int, releases_of: Collection[int], cutoff: datetime) -> list[Run]:
    """Training runs that ended before the cutoff, and that nothing needs.

    `runs` come newest first. Needed are the last one, those of dataset versions that can still be read (what looks back
    at one takes its model over), those whose bundles releases are made of (`releases_of`), and the runs whose bundles
    needed runs have taken over.
    """
    last = latest_run(runs)
    needed = {
        run.run_id
        for run in runs
        if run is last
        or (run.finished_at or run.started_at) >= cutoff
        or (run.dataset_version is not None and run.dataset_version >= oldest_version)
    }
    needed |= {bundle_run(run) for run in runs if run.run_id in needed and run.usable}
    needed |= set(releases_of)
    return [run for run in runs if run.run_id not in needed]


def remove_old_models(space: AgingSpace, use_case: UseCase, horizon: Horizon, dry_run: bool) -> list[Removed]:
    """Removes old training runs: their models and artifacts in the registry, their files, their partitions. Receipts
    stay."""
    records = space.records
    runs = records.runs(use_case.id, Stage.TRAINING)
    oldest = oldest_needed(space, use_case, horizon.cutoff)
    if oldest is None:
        return []
    serving = {release.training_run for release in kept_releases(space, use_case, horizon.cutoff)}
    if not (old := removable(runs, oldest, serving, horizon.cutoff)):
        return []
    new = [run.run_id for run in old if not run.receipt.get("removed")]
    if new and not dry_run:
        records.remove_models(new)  # first: from here on, no run builds on them
    files = _remove_files(space, folder_of_all(use_case.id), {str(run.run_id) for run in old}, dry_run)
    files += space.registry.remove_candidates(
        use_case.id, {key for run in old for key in run.outcome_keys}, horizon.cutoff, dry_run
    )
    return [Removed("training runs", len(new), sum(file.size_bytes for file in files))]


def _remove_files(space: AgingSpace, parent: str, names: Collection[str], dry_run: bool) -> list[StoredFile]:
    """Removes the folders of those names, unless it is a dry run; returns their files."""
    files = [file for file in space.files.stored(parent) if file.path.partition("/")[0] in names]
    for name in {file.path.partition("/")[0] for file in files} if not dry_run else ():
        space.files.delete(f"{parent}/{name}")
    return files
