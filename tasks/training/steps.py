"""Training's Prefect tasks: load, fit, save."""

from __future__ import annotations

from time import monotonic

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import bundle
from tasks.batches import held_bytes, plan_batches
from tasks.budget import check_begin, over_budget
from tasks.domain.names import Stage
from tasks.domain.run import Batch, Run, RunStatus
from tasks.ports import Space
from tasks.training import batch as pure
from tasks.training import tenant_wide
from tasks.training.finish import check_failures, drop_parts, keep_part, log_and_settle, stopped_by_failures
from tasks.training.intention import intend, plan_of, tenant_wide_to_keep
from tasks.training.lineage import bundle_run, original_run, previous_run, shared_by_batches, tenant_wide_path
from tasks.training.plan import Selection


@task(cache_policy=NO_CACHE, persist_result=False)
def plan_training(
    space: Space, use_case_id: str, dataset_version: int | None, selection: Selection
) -> tuple[Run, list[Batch]]:
    """Finds the partitions of a dataset version and splits what is to train into batches.

    A run of the same inputs that was cut off is resumed: its plan stands, and its pending batches come back. Raises
    `OverBudget` before anything is begun.
    """
    intention, records = intend(space, use_case_id, dataset_version, selection), space.records
    check_begin(space, use_case_id, intention.run)
    run = records.open_run(Stage.TRAINING, use_case_id, intention.key, dataset_version=intention.version)
    if run.status is RunStatus.FINISHED:
        return run, []
    if not records.planned(run):
        plan = plan_of(space, intention)
        records.plan(run, plan_batches(run.run_id, plan.train, space.policy.max_batches), plan.settled)
    elif stopped_by_failures(
        space, run
    ):  # whoever runs it again has mended the cause, or hopes that it was a passing one
        records.retry_failed(run)
    return run, records.batches(run, pending=True)


@task(cache_policy=NO_CACHE, persist_result=False)
def fit_tenant_wide(space: Space, run: Run, look_back: bool) -> None:
    """Fits the tenant-wide model on a sample, or takes over the last one while the use case has not grown enough.

    A look back takes the model that its dataset version was trained with, so that the same choices come out.
    """
    target = tenant_wide_path(run.use_case, run.run_id)
    if run.status is RunStatus.FINISHED or space.files.exists(target):
        return
    use_case = space.tenant.use_case(run.use_case)
    options, table = use_case.training.tenant_wide, space.table(use_case)
    assert run.dataset_version is not None
    partitions = table.partitions(run.dataset_version)
    previous = original_run(space, use_case, run.dataset_version) if look_back else previous_run(space, run)
    kept = tenant_wide_to_keep(space, use_case, previous, partitions, look_back)
    if kept is not None:
        space.files.write(target, space.files.read(tenant_wide_path(run.use_case, bundle_run(kept))))
        return
    samples = [
        tenant_wide.sample_bucket(table.read(run.dataset_version, bucket, labelled=True), use_case, quota)
        for bucket, quota in tenant_wide.quotas(partitions, options.max_rows).items()
    ]
    model = tenant_wide.fit_tenant_wide(
        samples, use_case, labelled_rows_now=int(partitions["labelled"].sum()), run_id=run.run_id, clock=monotonic
    )
    with space.scratch("tenant-wide") as scratch:
        bundle.write_part(scratch / "part.parquet", model.bundle_rows())
        space.files.put(target, scratch / "part.parquet")


# One batch is the unit of resumption: its part file is replaced whole, and its rows are stored in one transaction with
# the mark that it is finished.
@task(task_run_name="train batch {batch.number}", cache_policy=NO_CACHE, persist_result=False)
def train_batch(space: Space, run: Run, batch: Batch, reuse: bool) -> None:
    """Trains the partitions of one batch, unless a budget is spent: then the batch stays pending. Raises
    `TooManyFailures` once the run has more than the use case tolerates.
    """
    check_failures(space, run)
    if over_budget(space, run):
        return
    use_case = space.tenant.use_case(run.use_case)
    space.records.start_batch(batch)
    assert run.dataset_version is not None
    frame = space.table(use_case).read(run.dataset_version, batch.bucket, batch.partitions, labelled=True)
    shared = shared_by_batches(space, run)
    result = pure.train_batch(
        frame,
        batch,
        use_case,
        shared.tenant_wide,
        shared.previous_rows(space, batch) if reuse else None,
        champion=shared.champion,
    )
    written = keep_part(space, run, batch, result)
    space.records.finish_training_batch(batch, result.rows, bytes_in=held_bytes(frame), bytes_out=written)


@task(cache_policy=NO_CACHE, persist_result=False)
def finish_training(space: Space, run: Run, look_back: bool) -> int:
    """Packs the bundle, logs and registers it, and closes the receipt. Returns the id of the run.

    A run that has batches left was stopped: what it finished becomes a bundle of its own, and its parts are kept for
    when it goes on.
    """
    if run.status is not RunStatus.FINISHED:
        check_failures(space, run)
        stopped = bool(space.records.batches(run, pending=True))
        log_and_settle(space, run, look_back, stopped=stopped)
        if stopped:
            return run.run_id
    drop_parts(space, run)  # of a finished run too, which may have been killed before it came to this
    return run.run_id
