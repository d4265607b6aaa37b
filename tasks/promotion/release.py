"""From verdicts to a release that was loaded and tried, and from there to what serves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd

from tasks import bundle
from tasks.domain.budget import OVER_BUDGET
from tasks.domain.errors import NotFound
from tasks.domain.names import Stage
from tasks.domain.outcome import Promote, Verdict
from tasks.domain.run import Release, Run, RunStatus, run_key
from tasks.domain.use_case import Metric, UseCase
from tasks.example import example_rows
from tasks.ports import Space
from tasks.promotion.compose import Composed, compose, release_rows
from tasks.promotion.gate import Comparison

TRIED_ROWS = 20
"""So many rows a release must predict before it may serve."""


def promotion_key(use_case: UseCase, trained: Run) -> str:
    """Idempotency key of a promotion run: the candidates and the rules that judge them."""
    stopped = (trained.attempts,) if trained.status is RunStatus.STOPPED else ()  # later there are more candidates
    return run_key(Stage.PROMOTION, use_case.id, trained.run_id, use_case.gate.model_dump_json(), *stopped)


def comparisons(candidates: pd.DataFrame) -> dict[str, Comparison]:
    """Candidate against champion on new rows, for the partitions where training found any."""
    known = candidates[candidates["new_rows"].fillna(0) > 0]
    columns = ("partition", "new_rows", "new_metric", "new_champion_metric")
    return {
        partition: Comparison(int(rows), ours, theirs)
        for partition, rows, ours, theirs in zip(*(known[name].tolist() for name in columns), strict=True)
    }


def rivals(space: Space, use_case: UseCase, serving: int | None) -> pd.DataFrame | None:
    """`VERDICT` rows of the release that serves. None without one, or when its models go whatever the verdict, because
    they cannot serve beside the new ones: no candidate is held for them."""
    if serving is None:
        return None
    ours = json.loads(bundle.describe(use_case, space.tenant.id))
    if bundle.differing(ours, space.registry.scorer(use_case.id, serving).about):
        return None
    return space.records.verdicts(use_case.id, serving)


def otherwise_judged(runs: Iterable[Run], use_case: UseCase) -> set[int]:
    """Training runs whose receipts have errors by another metric than the use case's."""
    others = [f"holdout_{metric}" for metric in Metric if metric is not use_case.metric]
    return {run.run_id for run in runs if any(name in run.receipt for name in others)}


def make_release(
    space: Space, run: Run, trained: Run, base: int | None, verdicts: dict[str, Verdict]
) -> Release | None:
    """Puts the promoted and the retained models into the production registry and tries them there.

    `base` is the version of the release that serves. Returns None when it has this run's bundle already and the gate
    lets the same partitions through. Raises `GateFailed`, `Tampered`.
    """
    use_case, records, registry = space.tenant.use_case(run.use_case), space.records, space.registry
    bundle_run = int(str(trained.receipt["bundle_run"]))
    serving = next((release for release in records.releases(use_case.id) if release.version == base), None)
    passed = {partition for partition, verdict in verdicts.items() if isinstance(verdict, Promote)}
    if serving is not None and serving.training_run == bundle_run:
        before = records.verdicts(use_case.id, serving.version)
        whole = not before["reason"].str.startswith(f"no candidate: {OVER_BUDGET}").any()
        if whole and passed == set(before.loc[before["verdict"] == "promote", "partition"]):
            return None
    promoted = len(passed)
    example = example_rows(space.table(use_case), use_case, trained.dataset_version or 0, TRIED_ROWS)
    with space.scratch(f"release-{run.run_id}") as scratch, ExitStack() as stack:
        candidate = registry.fetch_candidate(use_case.id, records.run(bundle_run), scratch / "candidate")
        champion = stack.enter_context(registry.open_release(use_case.id, base)) if base is not None else None
        composed = compose(scratch / "release", candidate, champion, verdicts, threads=space.policy.workers)
        number, source, digest = registry.add_release(
            use_case,
            composed.folder,
            key=run.key,
            tags=_tags(space, use_case, trained, composed, promoted, len(verdicts) - promoted),
            example=example,
        )
        registry.try_release(use_case.id, number, example)
        release = Release(
            version=number,
            use_case=use_case.id,
            training_run=bundle_run,
            dataset_version=trained.dataset_version or 0,
            upload_seq=int(str(trained.receipt["upload_seq"])),
            status="challenger",
            source=source,
            digest=digest,
            partitions=len(composed.entries),
            promoted=promoted,
            held=len(verdicts) - promoted,
            created_at=datetime.now(UTC),
        )
        records.add_release(release, release_rows(composed, verdicts))
    return release


def _tags(
    space: Space, use_case: UseCase, trained: Run, composed: Composed, promoted: int, held: int
) -> dict[str, str]:
    return {
        "tier": space.tenant.tier.value,
        "kind": use_case.kind.value,
        "dataset_version": str(trained.dataset_version),
        "contract_hash": str(trained.receipt["contract_hash"]),
        "training_version": str(trained.receipt["training_version"]),
        "upload_seq": str(trained.receipt["upload_seq"]),
        "training_run": str(trained.run_id),
        "trained_at": str(trained.finished_at),
        "code_version": version("orchard"),
        "estimators": ",".join(use_case.estimators),
        "partition_by": ",".join(use_case.partition_by),
        "partitions": str(len(composed.entries)),
        "promoted": str(promoted),
        "held": str(held),
    }


def waits_for_approval(space: Space, use_case: UseCase, serving: int | None) -> bool:
    """Whether the release after the one that serves waits as challenger: the use case wants it so, or somebody has
    rolled back to the one that serves. The gate, which let the bad one pass, would let it pass again."""
    later = (each for each in space.records.releases(use_case.id) if serving is not None and each.version > serving)
    return use_case.gate.approval == "manual" or any(each.status == "retired" for each in later)


def make_champion(space: Space, use_case: str, version: int) -> None:
    """Lets a release serve: the registry's alias moves in one step, then the database follows it."""
    space.registry.set_alias(use_case, "champion", version)
    if space.registry.find(use_case, "challenger") == version:
        space.registry.remove_alias(use_case, "challenger")
    space.records.set_champion(use_case, version)


def promotion_receipt(verdicts: dict[str, Verdict], release: Release | None) -> dict[str, object]:
    """Counts of verdicts; the reasons for holding, grouped by their first words."""
    held = Counter(
        verdict.reason.split(":")[0].split(" of ")[0][:60]
        for verdict in verdicts.values()
        if not isinstance(verdict, Promote)
    )
    promoted = sum(isinstance(verdict, Promote) for verdict in verdicts.values())
    return {
        "partitions": len(verdicts),
        "promoted": promoted,
        "held": len(verdicts) - promoted,
        "reasons": dict(held.most_common(10)),
        "release": release.version if release else None,
    }


def earlier(space: Space, use_case: str, to: int | None = None) -> int:
    """Version of the release to roll back to: by default the newest retired one below the champion.

    It is checked against its digests. Raises `NotFound`, `Tampered`.
    """
    releases = space.records.releases(use_case)
    champion = next((release.version for release in releases if release.status == "champion"), None)
    before = [
        release.version
        for release in releases
        if release.status == "retired" and (champion is None or release.version < champion)
    ]
    retired = [release.version for release in releases if release.status == "retired"]
    chosen = to if to is not None else max(before, default=None)
    if chosen is None or chosen not in retired:
        raise NotFound(
            f"there is no {'release ' + str(to) if to is not None else 'earlier release'} to roll back to",
            expected=", ".join(map(str, retired)) or "at least one release that served before",
            hint=f"orchard releases list {space.tenant.id} {use_case}",
        )
    space.registry.check_release(use_case, chosen)
    return chosen
