"""A batch of partitions: what one mapped task trains."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import pandas as pd

from tasks.domain.errors import OrchardError
from tasks.domain.outcome import PartitionOutcome
from tasks.domain.run import Batch
from tasks.domain.use_case import UseCase
from tasks.ports import PARTITION_MODEL
from tasks.training.champion import Champion, champion_losses
from tasks.training.estimators import Clock
from tasks.training.partition import SHOWN_ROWS, Trained, train_partition
from tasks.training.rows import labelled_rows
from tasks.training.tenant_wide import TenantWideModel

_REUSED = {"outcome": PartitionOutcome.REUSED.value, "reason": ""}
"""What becomes of an earlier run's row. How the candidate compared with the champion stays known: one that was held for
it must not pass on recorded errors, only because nothing new came."""


@dataclass(frozen=True)
class BatchResult:
    """Every partition of a batch, settled.

    Attributes: rows: one per partition, columns `PARTITION_MODEL`, in the batch's order. models: one row of
    `BUNDLE_SCHEMA` per partition that was trained now, sorted by partition; the models of reused ones are
    in the bundle of their `source_run`. shown: (actual, predicted) of a few holdout rows of each.
    """

    rows: pd.DataFrame
    models: list[dict[str, Any]]
    shown: list[tuple[float, float]]


def train_batch(
    frame: pd.DataFrame,
    batch: Batch,
    use_case: UseCase,
    tenant_wide: TenantWideModel | None,
    previous: pd.DataFrame | None = None,
    *,
    champion: Champion | None = None,
    clock: Clock = monotonic,
    seed: int = 0,
) -> BatchResult:
    """Trains the batch's partitions on `frame`, the rows of their bucket.

    `previous` are `PARTITION_MODEL` rows of a run with the same contract hash and training version: a
    partition whose labelled rows are the same as then is reused. What goes wrong with one partition is its
    outcome, `failed` with a reason that groups by cause, and never stops the others. With a `champion`,
    candidates are compared with it on rows that are new to both.
    """
    usable: dict[str, dict[Hashable, Any]] = {}
    if previous is not None:
        kept = previous[previous["outcome"].isin([PartitionOutcome.TRAINED, PartitionOutcome.REUSED])]
        usable = {row["partition"]: row for row in kept.to_dict("records")}
    if "_partition" in frame:
        frame = frame[frame["_partition"].isin(batch.partitions)]
    rows, parts = labelled_rows(frame, use_case, keys=tenant_wide is not None)
    against = None if champion is None else champion_losses(champion, frame, rows, use_case)
    table: list[Mapping[Any, Any]] = []
    models: list[dict[str, Any]] = []
    shown: list[tuple[float, float]] = []
    for name in batch.partitions:
        started = clock()
        where = parts.get(name, slice(0, 0))
        part = rows.part(where)
        before = usable.get(name)
        if before is not None and before["data_hash"] == part.data_hash():
            seconds = clock() - started
            table.append(before | _REUSED | {"batch": batch.number, "seconds": seconds})
            continue
        try:
            trained = train_partition(
                part,
                use_case,
                name,
                tenant_wide,
                run_id=batch.run_id,
                clock=clock,
                seed=seed,
                champion=None if against is None else against[where],
            )
        except Exception as error:  # whatever it is, it must not take the other partitions with it
            reason = error.message if isinstance(error, OrchardError) else f"{type(error).__name__}: {error}"
            trained = Trained(PartitionOutcome.FAILED, len(part), part.data_hash(), reason=reason)
        if trained.model is not None:
            models.append(trained.model)
        shown.extend(trained.shown)
        table.append(_row(name, trained, batch, clock() - started))
    models.sort(key=lambda model: str(model["partition"]))
    rows_of_all = pd.DataFrame(table, columns=list(PARTITION_MODEL))
    return BatchResult(rows_of_all, models, shown[:: 1 + len(shown) // SHOWN_ROWS])


def _row(name: str, trained: Trained, batch: Batch, seconds: float) -> dict[str, Any]:
    """A row of `PARTITION_MODEL`."""
    return {
        "partition": name,
        "batch": batch.number,
        "outcome": trained.outcome.value,
        "estimator": None if trained.estimator is None else trained.estimator.value,
        "rows": trained.rows,
        "data_hash": trained.data_hash,
        "metric": trained.metric,
        "naive_metric": trained.naive_metric,
        "tenant_wide_metric": trained.tenant_wide_metric,
        "model_bytes": None if trained.model is None else len(trained.model["model"] or ""),
        "holdout_rows": trained.holdout_rows,
        "holdout_sum": trained.holdout_sum,
        "naive_sum": trained.naive_sum,
        "new_rows": trained.new_rows,
        "new_metric": trained.new_metric,
        "new_champion_metric": trained.new_champion_metric,
        "seconds": seconds,
        "reason": trained.reason,
        "source_run": batch.run_id,
    }
