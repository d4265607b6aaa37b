"""Promotion's Prefect tasks: judge, compose and try, switch."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.domain.errors import NotFound
from tasks.domain.names import Stage
from tasks.domain.outcome import Verdict
from tasks.domain.run import Release, Run, RunStatus
from tasks.ports import Space
from tasks.promotion.gate import judge_all
from tasks.promotion.release import (
    comparisons,
    make_champion,
    make_release,
    otherwise_judged,
    promotion_key,
    promotion_receipt,
    rivals,
    waits_for_approval,
)


@task(cache_policy=NO_CACHE, persist_result=False)
def judge_candidates(space: Space, use_case_id: str, training_run: int) -> tuple[Run, dict[str, Verdict]]:
    """One verdict per partition of a training run, by the use case's gate.

    The run remembers the release that served when it began, so that a resumed run judges by the same champion.
    """
    use_case, records = space.tenant.use_case(use_case_id), space.records
    trained = records.run(training_run)
    if not trained.usable or trained.use_case != use_case_id:
        raise NotFound(
            f"there is no finished training run {training_run} of {use_case_id!r}",
            hint=f"orchard receipts {space.tenant.id} {use_case_id}",
        )
    run = records.open_run(
        Stage.PROMOTION,
        use_case_id,
        promotion_key(use_case, trained),
        dataset_version=trained.dataset_version,
        release_version=space.registry.find(use_case_id, "champion"),
    )
    candidates = records.partition_models(trained)
    champions = rivals(space, use_case, run.release_version)
    verdicts = judge_all(
        candidates,
        champions,
        comparisons(candidates),
        gate=use_case.gate,
        metric=use_case.metric,
        otherwise_judged=otherwise_judged(records.runs(use_case_id, Stage.TRAINING), use_case),
    )
    return run, verdicts


@task(cache_policy=NO_CACHE, persist_result=False)
def compose_release(space: Space, run: Run, training_run: int, verdicts: dict[str, Verdict]) -> Release | None:
    """A self-contained release in the production registry, loaded and tried; None when nothing changed."""
    if run.status is RunStatus.FINISHED:
        return None
    return make_release(space, run, space.records.run(training_run), run.release_version, verdicts)


@task(cache_policy=NO_CACHE, persist_result=False)
def switch(space: Space, run: Run, release: Release | None, verdicts: dict[str, Verdict]) -> int | None:
    """Moves the alias: `champion`, or `challenger` where releases wait for approval. Returns the release's version."""
    if run.status is RunStatus.FINISHED:
        version = run.receipt.get("release")
        return int(str(version)) if version is not None else None
    if release is not None:
        if waits_for_approval(space, space.tenant.use_case(run.use_case), run.release_version):
            space.registry.set_alias(run.use_case, "challenger", release.version)
        else:
            make_champion(space, run.use_case, release.version)
    space.records.finish_run(run, promotion_receipt(verdicts, release))
    return release.version if release else None
