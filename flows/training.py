"""Stage 2: split into partitions → fit and evaluate in mapped batches → a bundle of candidates."""

from __future__ import annotations

from prefect import flow

from flows.failure import record_failure
from flows.runner import shared, threads, watch
from flows.space import open_space
from tasks.training.plan import Selection
from tasks.training.steps import finish_training, fit_tenant_wide, plan_training, train_batch


@flow(
    name="training",
    flow_run_name="{tenant}.{use_case} training",
    task_runner=threads(),
    persist_result=False,
    on_failure=[record_failure],
)
def train(
    tenant: str,
    use_case: str,
    dataset_version: int | None = None,
    only_failed: bool = False,
    partitions: list[str] | None = None,
    again: bool = False,
) -> int:
    """Trains one model per partition of a dataset version. Triggered by the pipeline, a schedule or a person.

    A killed run resumes at its first unfinished batch; a partition that did not change is reused. `again` trains all
    partitions anew. Returns the id of the training run.
    """
    space = open_space(tenant)
    selection = Selection(only_failed=only_failed, partitions=tuple(partitions or ()), again=again)
    with space.records.lock(use_case):
        run, batches = plan_training(space, use_case, dataset_version, selection)
        fit_tenant_wide(space, run, selection.again)
        if batches:
            watch(train_batch.map(shared(space), shared(run), batches, shared(selection.reuses)))
        return finish_training(space, run, selection.again)
