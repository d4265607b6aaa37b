"""The end of a training run: one bundle, one MLflow run, one receipt."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from tasks import bundle
from tasks.budget import why_stopped
from tasks.domain.errors import TooManyFailures
from tasks.domain.outcome import PartitionOutcome, PartitionReceipt
from tasks.domain.run import Batch, Run, RunStatus
from tasks.domain.use_case import UseCase
from tasks.example import example_rows
from tasks.metrics import metric_value
from tasks.ports import Space
from tasks.training.batch import BatchResult
from tasks.training.lineage import (
    bundle_run,
    folder,
    load_tenant_wide,
    previous_run,
    upload_seq,
)
from tasks.training.plan import recipe
from tasks.training.plots import draw

CAUSES = 10
"""So many causes of failure are named in a receipt."""


def partition_receipt(rows: pd.DataFrame) -> PartitionReceipt:
    """`rows`: all `PARTITION_MODEL` rows of a run. Failures are grouped by cause, with an example each."""
    counts = rows["outcome"].value_counts()
    failed = rows[rows["outcome"] == PartitionOutcome.FAILED]
    causes = {
        str(reason): f"{len(group)} ×, e.g. {group['partition'].iloc[0]}"
        for reason, group in sorted(failed.groupby("reason"), key=lambda item: -len(item[1]))[:CAUSES]
    }
    return PartitionReceipt(
        partitions=len(rows),
        **{outcome.value: int(counts.get(outcome.value, 0)) for outcome in PartitionOutcome},
        causes=causes,
    )


def stopped_by_failures(space: Space, run: Run) -> bool:
    """Whether more partitions have failed than the use case tolerates."""
    failed, partitions = _failed(space, run)
    return failed > space.tenant.use_case(run.use_case).training.max_failed * partitions


def _failed(space: Space, run: Run) -> tuple[int, int]:
    """How many partitions failed, and how many the run has, those that needed no work among them."""
    failed = space.records.failed_partitions(run)
    if not failed:
        return 0, 0
    settled = int((space.records.partition_models(run)["batch"] == 0).sum())
    return failed, settled + sum(len(batch.partitions) for batch in space.records.batches(run))


def check_failures(space: Space, run: Run) -> None:
    """Raises `TooManyFailures` once more partitions have failed than the use case tolerates."""
    if stopped_by_failures(space, run):
        options = space.tenant.use_case(run.use_case).training
        failed, partitions = _failed(space, run)
        rows = space.records.partition_models(run)
        receipt = partition_receipt(rows)
        raise TooManyFailures(
            f"{failed} of {partitions} partitions failed",
            expected=f"at most {options.max_failed:.0%} (training.max_failed)",
            found="; ".join(f"{cause} ({count})" for cause, count in receipt.causes.items()),
            where=f"{space.tenant.id}.{run.use_case}, training run {run.run_id}",
            hint="mend the cause and run again: what failed is tried again, what was trained is kept",
        )


def keep_part(space: Space, run: Run, batch: Batch, result: BatchResult) -> int:
    """Keeps a batch's models, and what its plot needs, until the run is packed; each file is replaced whole. Returns
    the bytes of the models."""
    target = folder(run.use_case, run.run_id)
    if not result.models:  # an attempt that was cut off may have had some
        space.files.delete(f"{target}/models/part-{batch.number:04}.parquet")
        space.files.delete(f"{target}/shown/{batch.number:04}.json")
        return 0
    with space.scratch(f"batch-{batch.number}") as scratch:
        bundle.write_part(scratch / "part.parquet", result.models)
        size = (scratch / "part.parquet").stat().st_size
        space.files.put(f"{target}/models/part-{batch.number:04}.parquet", scratch / "part.parquet")
    space.files.write(f"{target}/shown/{batch.number:04}.json", json.dumps(result.shown).encode())
    return size


def weighted_metrics(rows: pd.DataFrame, use_case: UseCase) -> dict[str, float]:
    """Errors over all holdout rows of a run's models, each row weighing the same."""
    judged = rows[rows["holdout_rows"].fillna(0) > 0]
    total = int(judged["holdout_rows"].sum())
    if total == 0:
        return {}
    metric = use_case.metric
    return {
        f"holdout_{metric}": metric_value(metric, float(judged["holdout_sum"].sum()), total),
        f"holdout_naive_{metric}": metric_value(metric, float(judged["naive_sum"].sum()), total),
        "holdout_rows": float(total),
        **{f"chose_{name}": float(count) for name, count in judged["estimator"].value_counts().items()},
    }


def log_and_settle(space: Space, run: Run, look_back: bool, *, stopped: bool = False) -> None:
    """Packs and logs the bundle of a run whose batches are all finished, then finishes the run; of one that was
    stopped, those that are.

    A run in which no model changed, nor the tenant-wide one, keeps the bundle of the run before it. `look_back` marks a
    run that reproduced an older dataset version: later runs do not build on it.
    """
    use_case, records = space.tenant.use_case(run.use_case), space.records
    why = why_stopped(space, run) if stopped else ""
    if stopped:
        run = run.model_copy(update={"status": RunStatus.STOPPED})
        records.leave(run, why)
    rows = records.partition_models(run)
    receipt = partition_receipt(rows)
    previous = previous_run(space, run)
    partitions = space.table(use_case).partitions(run.dataset_version or 0)
    fitted_now = load_tenant_wide(space, use_case.id, run.run_id).source_run == run.run_id
    sampled = min(int(partitions["labelled"].sum()), use_case.training.tenant_wide.max_rows)
    facts: dict[str, object] = {
        **receipt.model_dump(),
        **recipe(use_case),
        **weighted_metrics(rows, use_case),
        "bundle_run": run.run_id,
        "look_back": look_back,
        "upload_seq": upload_seq(partitions),
        "tenant_wide_rows": sampled if fitted_now else 0,
    }
    unchanged = not fitted_now and not (rows["outcome"] == PartitionOutcome.TRAINED).any()
    if (
        previous is not None
        and unchanged
        and set(rows["partition"]) == set(records.partition_models(previous)["partition"])
    ):
        _settle(space, run, {**facts, "bundle_run": bundle_run(previous)}, why)
        return
    with space.scratch(f"bundle-{run.run_id}") as scratch:
        path = _assemble(space, run, rows, use_case, previous, scratch)
        _log(space, run, rows, use_case, facts, path, scratch)
    _settle(space, run, facts, why)


def _settle(space: Space, run: Run, facts: dict[str, object], why: str) -> None:
    if run.status is RunStatus.STOPPED:
        space.records.stop_run(run, facts, why)
    else:
        space.records.finish_run(run, facts)


def drop_parts(space: Space, run: Run) -> None:
    """Removes what batches have kept for a bundle that is registered now."""
    for leftover in ("models", "shown"):
        space.files.delete(f"{folder(run.use_case, run.run_id)}/{leftover}")


def _assemble(
    space: Space, run: Run, rows: pd.DataFrame, use_case: UseCase, previous: Run | None, scratch: Path
) -> Path:
    has_model = rows["outcome"].isin([PartitionOutcome.TRAINED, PartitionOutcome.REUSED])
    reused = set(rows.loc[rows["outcome"] == PartitionOutcome.REUSED, "partition"])
    everyone = scratch / "tenant-wide.parquet"
    bundle.write_part(everyone, load_tenant_wide(space, use_case.id, run.run_id).bundle_rows()[:1])
    with ExitStack() as stack:
        stored = space.files.list(f"{folder(use_case.id, run.run_id)}/models")
        parts = [stack.enter_context(space.files.local(path)) for path in stored]
        earlier = None
        if reused and previous is not None:
            source = space.records.run(bundle_run(previous))
            earlier = (space.registry.fetch_candidate(use_case.id, source, scratch / "earlier"), reused)
        bundle.assemble(
            scratch / "bundle",
            [*parts, everyone],
            use_case=use_case,
            tenant=space.tenant.id,
            unanswered=rows.loc[~has_model, "partition"],
            earlier=earlier,
        )
    return scratch / "bundle"


def _log(
    space: Space,
    run: Run,
    rows: pd.DataFrame,
    use_case: UseCase,
    facts: dict[str, object],
    path: Path,
    scratch: Path,
) -> None:
    table = scratch / "partitions.parquet"
    rows.to_parquet(table, index=False)
    sample = example_rows(space.table(use_case), use_case, run.dataset_version or 0, 5)
    space.registry.log_training(
        use_case,
        run,
        path,
        params={
            **use_case.training.model_dump(mode="json"),
            "estimators": ",".join(use_case.estimators),
            "metric": use_case.metric.value,
            "features": ",".join(use_case.features.all),
        },
        metrics={key: value for key, value in facts.items() if isinstance(value, int | float)},
        tags={
            "dataset_version": str(run.dataset_version),
            "contract_hash": str(facts["contract_hash"]),
            "training_version": str(facts["training_version"]),
            "upload_seq": str(facts["upload_seq"]),
            "estimators": ",".join(use_case.estimators),
            "partition_by": ",".join(use_case.partition_by),
            "partitions": str(facts["partitions"]),
            "tier": space.tenant.tier.value,
        },
        example=sample,
        artifacts={"partitions.parquet": table, **draw(rows, _shown(space, run), use_case, scratch)},
    )


def _shown(space: Space, run: Run) -> list[tuple[float, float]]:
    """(actual, predicted) of a few holdout rows of every partition that was trained."""
    files = space.files.list(f"{folder(run.use_case, run.run_id)}/shown")
    return [(actual, predicted) for path in files for actual, predicted in json.loads(space.files.read(path))]
