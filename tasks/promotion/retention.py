"""What promotion leaves behind: releases that nothing will go back to."""

from __future__ import annotations

from tasks.domain.retention import Horizon, Removed
from tasks.domain.use_case import UseCase
from tasks.retention import AgingSpace, kept_releases


def remove_old_releases(space: AgingSpace, use_case: UseCase, horizon: Horizon, dry_run: bool) -> list[Removed]:
    """Removes releases that were replaced before the cutoff, and old ones that no record knows, because whoever made
    them was cut off. Champion, challenger and the release before the champion stay, whatever their age."""
    records, registry = space.records, space.registry
    known = {release.version for release in records.releases(use_case.id)}
    if not known:
        return []
    kept = {release.version for release in kept_releases(space, use_case, horizon.cutoff)}
    old = {
        version
        for version, made_at in registry.release_versions(use_case.id).items()
        if version not in kept and (version in known or made_at < horizon.cutoff)
    }
    for version in sorted(old & known) if not dry_run else ():
        records.remove_release(use_case.id, version)  # first: from here on, nobody rolls back to it
    files = registry.remove_releases(use_case.id, old, horizon.cutoff, dry_run)
    return [Removed("releases", len(old), sum(file.size_bytes for file in files))]
