"""What is old and serves nothing any more is removed for good, by the stage that has left it. Here is what they share:
what a space offers for it, and what still serves, however old it is."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from tasks.domain.names import Purpose
from tasks.domain.retention import Removed
from tasks.domain.run import Release, UploadStatus
from tasks.domain.use_case import UseCase
from tasks.ports import Files, Predictions, Records, Registry, Space, Table


class StoredFile(NamedTuple):
    """A file below a folder, by its path there."""

    path: str
    size_bytes: int
    modified: datetime


class AgingFiles(Files, Protocol):
    def stored(self, folder: str) -> list[StoredFile]:
        """All files below a folder; none where there is no folder."""


class AgingTable(Table, Protocol):
    def version_at(self, moment: datetime) -> int | None:
        """The version that was current at that moment, or the oldest if all are younger; None before the first."""

    def merged_in(self, upload_id: str) -> int | None:
        """The version that an upload's merge made; None if it was not merged."""

    def forget(self, before: int, dry_run: bool) -> list[Removed]:
        """Removes for good what only versions before that one need. Nobody may write meanwhile."""


class AgingPredictions(Predictions, Protocol):
    def forget(self, cutoff: datetime, unfinished: Container[int], dry_run: bool) -> list[Removed]:
        """Removes for good what was replaced before the cutoff, and files that no run has published; those of the
        `unfinished` runs stay. Nobody may write meanwhile."""


class AgingRecords(Records, Protocol):
    def superseded_scores(self, use_case: str, cutoff: datetime) -> list[int]:
        """Scoring runs whose predictions were replaced before the cutoff."""

    def remove_scores(self, run_ids: Sequence[int], dry_run: bool) -> int:
        """Removes the predictions and the plans of scoring runs; returns how many rows. Their receipts stay."""

    def remove_models(self, run_ids: Sequence[int]) -> None:
        """Removes the partitions and the plans of training runs; their receipts stay, and say that they are gone."""

    def remove_release(self, use_case: str, version: int) -> None:
        """Removes the verdicts of a release, and marks it as removed."""


class AgingRegistry(Registry, Protocol):
    def remove_candidates(
        self, use_case: str, keys: Collection[str], cutoff: datetime, dry_run: bool
    ) -> list[StoredFile]:
        """Removes runs and versions of the training registry, by the keys of their runs, with their artifacts, and old
        artifacts that belong to none; returns the files."""

    def release_versions(self, use_case: str) -> dict[int, datetime]:
        """Versions of the production registry, and when they were made."""

    def remove_releases(
        self, use_case: str, versions: Collection[int], cutoff: datetime, dry_run: bool
    ) -> list[StoredFile]:
        """Removes versions of the production registry with their files, and old files that belong to none; returns the
        files."""


class AgingSpace(Space, Protocol):
    """A space in which things grow old."""

    @property
    def files(self) -> AgingFiles: ...
    @property
    def records(self) -> AgingRecords: ...
    @property
    def registry(self) -> AgingRegistry: ...
    def table(self, use_case: UseCase) -> AgingTable: ...
    def predictions(self, use_case: UseCase) -> AgingPredictions: ...


def oldest_needed(space: AgingSpace, use_case: UseCase, cutoff: datetime) -> int | None:
    """The oldest dataset version to keep: the one that was current at the cutoff, or one that an upload which waits
    will be read at. None without a table."""
    table = space.table(use_case)
    current = table.version_at(cutoff)
    if current is None:
        return None
    needed = [current]
    for upload in space.records.uploads(use_case.id):
        if upload.status is UploadStatus.RECEIVED:  # killed after its merge, it is matched with the version before
            merged = table.merged_in(upload.upload_id)
            needed += [max(merged - 1, 0)] if merged is not None else []
        elif upload.status is UploadStatus.INGESTED and upload.purpose is not Purpose.HISTORY:
            needed += [upload.dataset_version] if upload.dataset_version is not None else []
    return min(needed)


def kept_releases(space: AgingSpace, use_case: UseCase, cutoff: datetime) -> list[Release]:
    """Releases that stay: champion, challenger, the one to roll back to, and what was replaced after the cutoff."""
    releases = space.records.releases(use_case.id)
    if not releases:
        return []
    champion = next((release.version for release in releases if release.status == "champion"), None)
    earlier = (
        release.version
        for release in releases
        if release.status == "retired" and (champion is None or release.version < champion)
    )
    aliased = (space.registry.find(use_case.id, alias) for alias in ("champion", "challenger"))
    needed = {*aliased, champion, max(earlier, default=None)}
    kept = []
    replaced_at: datetime | None = None
    for release in releases:  # the newest first: each is taken to have been replaced by the one before it here
        recent = (replaced_at or release.created_at) >= cutoff
        if release.status != "removed" and (recent or release.version in needed):
            kept.append(release)
        replaced_at = release.created_at
    return kept
