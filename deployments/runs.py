"""Running flows in this process, with a progress bar, against a Prefect server that is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.cli.output import errors
from deployments.platform import Platform
from infra.space import TenantSpace
from infra.space import open_space as open_tenant_space
from tasks.domain.names import Stage
from tasks.domain.run import RunStatus, Upload, UploadStatus

Result = TypeVar("Result")


def open_space(platform: Platform, tenant: str) -> TenantSpace:
    """The space of an onboarded tenant. Raises `NotFound`."""
    return open_tenant_space(platform.settings, tenant)


def run_pipeline(space: TenantSpace, upload_id: str) -> Upload:
    """Takes one upload through the pipeline; returns it as it is afterwards."""
    from flows.pipeline import pipeline

    use_case = space.records.upload(upload_id).use_case
    in_process(space, use_case, lambda: pipeline(space.tenant.id, upload_id))
    return space.records.upload(upload_id)


def run_waiting(space: TenantSpace, use_cases: Sequence[str]) -> list[Upload]:
    """Takes up, in the order of arrival, the uploads that were stored or cut off."""
    waiting = [
        upload
        for upload in space.records.uploads()
        if upload.use_case in use_cases and upload.status in (UploadStatus.RECEIVED, UploadStatus.INGESTED)
    ]
    return [run_pipeline(space, upload.upload_id) for upload in waiting]


def run_stages(
    space: TenantSpace,
    use_case: str,
    stage: Stage | None,
    only_failed: bool,
    partitions: tuple[str, ...],
    dataset_version: int | None,
) -> dict[str, object]:
    """Runs stages by hand: training with promotion and then scoring, or only one of them."""
    from flows.promotion import promote
    from flows.scoring import score
    from flows.training import train

    def work() -> dict[str, object]:
        done: dict[str, object] = {"use_case": use_case, "training": None, "release": None, "scoring": None}
        if stage in (None, Stage.TRAINING):
            done["training"] = train(
                space.tenant.id,
                use_case,
                dataset_version=dataset_version,
                only_failed=only_failed,
                partitions=list(partitions),
                again=dataset_version is not None,
            )
            done["release"] = promote(space.tenant.id, use_case, done["training"])
        elif stage is Stage.PROMOTION:
            latest = next(
                run for run in space.records.runs(use_case, Stage.TRAINING) if run.status is RunStatus.FINISHED
            )
            done["release"] = promote(space.tenant.id, use_case, latest.run_id)
        if stage in (None, Stage.SCORING):
            done["scoring"] = score(space.tenant.id, use_case)
        return done

    return in_process(space, use_case, work)


def in_process(space: TenantSpace, use_case: str, work: Callable[[], Result]) -> Result:
    """Runs a flow here, and shows how many batches of its current stage are finished. Ctrl-C stops the waiting at once;
    what was finished stays finished."""
    from flows.runner import without_heartbeats

    def quietly() -> Result:
        with without_heartbeats():
            return work()

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ThreadPoolExecutor(1) as pool, Progress(*columns, console=errors, transient=True) as progress:
        future = pool.submit(quietly)
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

