"""Scoring's Prefect tasks: load, predict, save."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.batches import held_bytes, plan_batches
from tasks.budget import check_begin, over_budget, why_stopped
from tasks.domain.errors import OverBudget
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Run, RunStatus, Upload, UploadStatus
from tasks.ports import Space
from tasks.scoring.predict import answer_rows
from tasks.scoring.receipt import scoring_receipt
from tasks.scoring.waiting import chosen_uploads, scoring_key


@task(cache_policy=NO_CACHE, persist_result=False)
def uploads_to_score(space: Space, use_case_id: str, upload_id: str | None, again: bool) -> list[Upload]:
    """The one upload asked for, or all scoring uploads that wait; with `again`, those with open rows too, but for those
    whose dataset version is not kept any more: their last predictions stay."""
    return chosen_uploads(space, use_case_id, upload_id, again)


@task(cache_policy=NO_CACHE, persist_result=False)
def plan_scoring(space: Space, upload: Upload) -> tuple[Run | None, list[Batch]]:
    """Finds the release by its tags and alias, checks it, and splits the upload's rows into batches.

    Returns (None, []) while there is no release: the upload waits for one. Raises `Tampered`, and `OverBudget` before
    anything is begun.
    """
    use_case = space.tenant.use_case(upload.use_case)
    release = space.registry.find(use_case.id, "champion")
    if release is None or upload.dataset_version is None:
        return None, []
    version = upload.dataset_version
    key = scoring_key(space, upload, release)
    known = (run for run in space.records.runs(use_case.id, Stage.SCORING) if run.key == key)
    check_begin(space, use_case.id, next(known, None))
    run = space.records.open_run(
        Stage.SCORING,
        use_case.id,
        key,
        upload_id=upload.upload_id,
        dataset_version=version,
        release_version=release,
    )
    if run.status is RunStatus.FINISHED:
        return run, []
    space.registry.check_release(use_case.id, release)
    partitions = space.table(use_case).partitions(version, upload_seq=upload.seq)
    space.records.plan(run, plan_batches(run.run_id, partitions, space.policy.max_batches))
    return run, space.records.batches(run, pending=True)


# One batch is the unit of resumption: its rows and the mark that it is finished are stored in one transaction.
@task(task_run_name="score batch {batch.number}", cache_policy=NO_CACHE, persist_result=False)
def score_batch(space: Space, run: Run, batch: Batch) -> None:
    """Predicts the rows of one batch; they stay unseen until the run is published. Once a budget is spent, the batch
    stays pending."""
    if over_budget(space, run):
        return
    space.records.start_batch(batch)
    use_case = space.tenant.use_case(run.use_case)
    assert run.dataset_version is not None
    assert run.release_version is not None
    seq = space.records.upload(str(run.upload_id)).seq
    frame = space.table(use_case).read(run.dataset_version, batch.bucket, batch.partitions, upload_seq=seq)
    rows = answer_rows(frame, use_case, space.registry.scorer(run.use_case, run.release_version))
    space.predictions(use_case).write(run, batch, rows)
    space.records.finish_scoring_batch(batch, rows, bytes_in=held_bytes(frame))


@task(cache_policy=NO_CACHE, persist_result=False)
def publish(space: Space, run: Run) -> int:
    """Shows the run's rows to readers, on the lake and in SQL; each all at once. Returns the id of the run.

    A run that has batches left was stopped: nothing is shown, and what it finished is kept for when it goes on. Raises
    `OverBudget`.
    """
    if run.status is not RunStatus.FINISHED:
        if pending := space.records.batches(run, pending=True):
            left = sum(len(batch.partitions) for batch in pending)
            receipt = scoring_receipt(space.records.scored(run)).model_copy(update={"left": left})
            why = why_stopped(space, run)
            space.records.stop_run(run, receipt.model_dump(), why)
            raise OverBudget(why, where=f"scoring run {run.run_id}: {left} partitions are left")
        use_case = space.tenant.use_case(run.use_case)
        receipt = scoring_receipt(space.records.scored(run))
        space.predictions(use_case).publish(run, space.records.upload(str(run.upload_id)))
        space.records.publish_scores(run, receipt.model_dump())
    space.records.update_upload(str(run.upload_id), status=UploadStatus.DONE)
    return run.run_id
