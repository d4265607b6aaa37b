"""Running flows in this process, with a progress bar, against a Prefect server that is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.cli.output import errors
from infra.space import TenantSpace
from tasks.budget import check_stopped
from tasks.domain.errors import NotFound, Permanent
from tasks.domain.names import Stage
from tasks.domain.run import Run, RunStatus, Upload

Result = TypeVar("Result")


def run_pipeline(space: TenantSpace, upload_id: str) -> Upload:
    """Takes one upload through the pipeline; returns it as it is afterwards."""
    use_case = space.records.upload(upload_id).use_case
    with_progress(space, use_case, lambda: pipeline_here(space, upload_id))
    return space.records.upload(upload_id)


def pipeline_here(space: TenantSpace, upload_id: str) -> None:
    """The pipeline of one upload in this thread, without a progress bar."""
    from flows.pipeline import pipeline
    from flows.runner import in_this_process

    with in_this_process():
        pipeline(space.tenant.id, upload_id)


def run_waiting(space: TenantSpace, use_cases: Sequence[str]) -> list[Upload]:
    """Takes up, in the order of arrival, the uploads that wait; returns them as they are afterwards.

    One that fails for a reason of its own, noted in its `error`, does not keep the others waiting. Raises `Retryable`.
    """
    from flows.operations import waiting_uploads

    done = []
    for upload in waiting_uploads(space, use_cases):
        try:
            done.append(run_pipeline(space, upload.upload_id))
        except Permanent:
            done.append(space.records.upload(upload.upload_id))
    return done


def run_stages(
    space: TenantSpace,
    use_case: str,
    stage: Stage | None,
    only_failed: bool,
    partitions: tuple[str, ...],
    dataset_version: int | None,
) -> dict[str, object]:
    """Runs stages by hand: training with promotion and then scoring, or only one of them.

    With a dataset version, all partitions are trained as of that version, and nothing is promoted.
    """
    from flows.budgets import reviewed_budgets
    from flows.metering import metered
    from flows.promotion import promote
    from flows.runner import in_this_process
    from flows.scoring import score
    from flows.training import train

    def work() -> dict[str, object]:
        done: dict[str, object] = {"use_case": use_case, "training": None, "release": None, "scoring": None}
        if stage in (None, Stage.TRAINING):
            training_run = train(
                space.tenant.id,
                use_case,
                dataset_version=dataset_version,
                only_failed=only_failed,
                partitions=list(partitions),
                again=dataset_version is not None,
            )
            done["training"] = training_run
            if dataset_version is not None:  # a look back: the models are reproduced, what serves stays
                return done
            done["release"] = promote(space.tenant.id, use_case, training_run)
            check_stopped(space, training_run)
        elif stage is Stage.PROMOTION:
            done["release"] = promote(space.tenant.id, use_case, finished_training(space, use_case).run_id)
        if stage in (None, Stage.SCORING):
            done["scoring"] = score(space.tenant.id, use_case, again=True)
        return done

    def quietly() -> dict[str, object]:
        with in_this_process(), reviewed_budgets(), metered(space):
            return work()

    return with_progress(space, use_case, quietly)


def finished_training(space: TenantSpace, use_case: str) -> Run:
    """The latest training run that came to its end, or was stopped. Raises `NotFound`."""
    for run in space.records.runs(use_case, Stage.TRAINING):
        if run.usable and not run.receipt.get("look_back"):
            return run
    raise NotFound(
        f"{space.tenant.id}.{use_case} was not trained yet", hint=f"orchard run {space.tenant.id} {use_case}"
    )


def with_progress(space: TenantSpace, use_case: str, work: Callable[[], Result]) -> Result:
    """Does the work in a thread, and shows how many batches of its current stage are finished. Ctrl-C stops the waiting
    at once; what was finished stays finished."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    pool, patient = ThreadPoolExecutor(1), True
    try:
        with Progress(*columns, console=errors, transient=True) as progress:
            future = pool.submit(work)
            bar = progress.add_task(f"{space.tenant.id} {use_case}", total=None)
            while not future.done():
                runs = [run for run in space.records.runs(use_case) if run.status is RunStatus.RUNNING]
                if runs:
                    batches = space.records.batches(runs[0])
                    pending = space.records.batches(runs[0], pending=True)
                    progress.update(
                        bar,
                        description=f"{space.tenant.id} {use_case} {runs[0].stage}",
                        completed=len(batches) - len(pending),
                        total=len(batches) or None,
                    )
                wait([future], timeout=0.5)
            return future.result()
    except KeyboardInterrupt:
        patient = False
        raise
    finally:
        pool.shutdown(wait=patient)
