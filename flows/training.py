"""Stage 2: split into partitions → fit and evaluate in mapped batches → a bundle of candidates."""

from __future__ import annotations

from prefect import flow

from flows.events import announce_failed, announce_finished
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
    on_failure=[record_failure, announce_failed],
    on_completion=[announce_finished],
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

    A killed run resumes at its first unfinished batch; a partition that did not change is reused. Returns the id of the
    training run.

    Args:
        tenant: the tenant's id.
        use_case: the use case's id.
        dataset_version: version of the use case's table; the latest without it.
        only_failed: train what failed last time.
        partitions: train only these, by name, such as store=12,sku=7.
        again: train all partitions anew.
    """
    space = open_space(tenant)
    selection = Selection(only_failed=only_failed, partitions=tuple(partitions or ()), again=again)
    with space.records.lock(use_case):
        run, batches = plan_training(space, use_case, dataset_version, selection)
        fit_tenant_wide(space, run, selection.again)
        if batches:
            watch(
                train_batch.map(shared(space), shared(run), batches, shared(selection.reuses)),
                f"training {tenant}.{use_case}",
            )
        return finish_training(space, run, selection.again)
