"""Scoring's Prefect tasks: load, predict, save."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.batches import plan_batches
from tasks.domain.errors import NoRelease, NotFound
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Run, RunStatus, run_key
from tasks.ports import Space
from tasks.scoring.predict import answer_rows
from tasks.scoring.receipt import scoring_receipt


@task(cache_policy=NO_CACHE, persist_result=False)
def plan_scoring(
    space: Space, use_case_id: str, dataset_version: int | None, upload_id: str | None
) -> tuple[Run | None, list[Batch]]:
    """Finds the release by its tags and alias, and splits the rows to score into batches.

    Returns (None, []) when no row waits. Raises `NoRelease`, `Tampered`.
    """
    use_case = space.tenant.use_case(use_case_id)
    table = space.table(use_case)
    version = dataset_version if dataset_version is not None else table.version()
    if version is None:
        raise NotFound(
            f"use case {use_case_id!r} of {space.tenant.id!r} has no data yet", hint="upload a history file first"
        )
    seq = space.records.upload(upload_id).seq if upload_id else None
    partitions = table.partitions(version, upload_seq=seq)
    column = "rows" if seq is not None else "open"
    waiting = partitions.assign(rows=partitions[column]).query("rows > 0")
    if waiting.empty and seq is None:
        return None, []
    release = space.registry.find(use_case_id, "champion")
    if release is None:
        raise NoRelease(
            f"no release serves {space.tenant.id}.{use_case_id}",
            hint="upload a history file; its models are promoted when they pass the gate",
        )
    run = space.records.open_run(
        Stage.SCORING,
        use_case_id,
        run_key(Stage.SCORING, use_case_id, upload_id or "open", version, release),
        upload_id=upload_id,
        dataset_version=version,
        release_version=release,
    )
    if run.status is RunStatus.FINISHED:
        return run, []
    space.registry.check_release(use_case_id, release)
    space.records.plan(run, plan_batches(run.run_id, waiting, space.policy.max_batches))
    return run, space.records.batches(run, pending=True)


# One batch is the unit of resumption: its rows and the mark that it is finished are stored in one transaction.
@task(task_run_name="score batch {batch.number}", cache_policy=NO_CACHE, persist_result=False)
def score_batch(space: Space, run: Run, batch: Batch) -> None:
    """Predicts the rows of one batch; they stay unseen until the run is published."""
    space.records.start_batch(batch)
    use_case = space.tenant.use_case(run.use_case)
    assert run.dataset_version is not None
    assert run.release_version is not None
    seq = space.records.upload(run.upload_id).seq if run.upload_id else None
    frame = space.table(use_case).read(
        run.dataset_version,
        batch.bucket,
        batch.partitions,
        labelled=None if seq is not None else False,
        upload_seq=seq,
    )
    rows = answer_rows(frame, use_case, space.registry.scorer(run.use_case, run.release_version))
    space.predictions(use_case).write(run, batch, rows)
    space.records.finish_scoring_batch(batch, rows)


@task(cache_policy=NO_CACHE, persist_result=False)
def publish(space: Space, run: Run) -> int:
    """Shows the run's rows to readers, on the lake and in SQL; each all at once. Returns the id of the run."""
    if run.status is RunStatus.FINISHED:
        return run.run_id
    use_case = space.tenant.use_case(run.use_case)
    receipt = scoring_receipt(space.records.scored(run))
    space.predictions(use_case).publish(run, space.records.upload(run.upload_id) if run.upload_id else None)
    space.records.publish_scores(run, receipt.model_dump())
    return run.run_id
