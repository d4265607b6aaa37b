"""What a training run would do, found without changing anything: the run itself goes by it, and so do estimates."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from tasks.domain.errors import NotFound
from tasks.domain.names import Stage
from tasks.domain.outcome import PartitionOutcome
from tasks.domain.retention import gone_version
from tasks.domain.run import Run
from tasks.domain.use_case import UseCase
from tasks.ports import PARTITION_MODEL, Space
from tasks.training.lineage import (
    bundle_run,
    latest_comparable,
    load_tenant_wide,
    original_run,
    quarantined_partitions,
    seen_seq,
)
from tasks.training.plan import Plan, Selection, plan_run, training_key
from tasks.training.rows import labelled_rows
from tasks.training.tenant_wide import TenantWideModel


@dataclass(frozen=True)
class Intention:
    """A run of a dataset version that is asked for. `key` finds it, `run` is it if it was begun before; `previous` is
    the one that it may take models over from."""

    use_case: UseCase
    version: int
    key: str
    selection: Selection
    run: Run | None
    previous: Run | None


def intend(space: Space, use_case_id: str, dataset_version: int | None, selection: Selection) -> Intention:
    """What is asked for, of the latest dataset version or of that one. Raises `NotFound`."""
    use_case, records = space.tenant.use_case(use_case_id), space.records
    table = space.table(use_case)
    latest = table.version()
    if latest is None:
        raise NotFound(
            f"use case {use_case_id!r} of {space.tenant.id!r} has no data yet",
            hint=f"orchard upload {space.tenant.id} {use_case_id} history FILE",
        )
    version = latest if dataset_version is None else dataset_version
    if version > latest:
        raise NotFound(
            f"use case {use_case_id!r} of {space.tenant.id!r} has no dataset version {version}",
            expected=f"0 to {latest}",
            found=str(version),
        )
    if dataset_version is not None and (oldest := table.oldest()) is not None and version < oldest:
        raise gone_version(use_case_id, version, oldest)
    runs = records.runs(use_case_id, Stage.TRAINING)
    key = training_key(use_case, version, selection, runs)
    run = next((each for each in runs if each.key == key), None)
    previous = latest_comparable(runs, use_case, before=None if run is None else run.run_id)
    return Intention(use_case, version, key, selection, run, previous)


def plan_of(space: Space, intention: Intention) -> Plan:
    """Which partitions such a run trains, and what becomes of the others."""
    previous = intention.previous
    return plan_run(
        space.table(intention.use_case).partitions(intention.version),
        space.records.partition_models(previous) if previous else None,
        seen_seq(space, previous) if previous else 0,
        intention.selection,
        quarantined_partitions(space, intention.use_case.id, intention.version),
    )


HASHED_ROWS = 200_000
"""Up to so many rows are read to tell whether they are still the same; about half a second's work."""


def reused_in_batches(
    space: Space,
    use_case: UseCase,
    version: int,
    plan: Plan,
    table: pd.DataFrame,
    models: pd.DataFrame | None,
    seen: int,
) -> tuple[set[str], bool]:
    """Which of the partitions that a plan leaves to batches they will reuse: as many labelled rows as before, none of
    them newer than what was seen (rows without a target are what came). And whether that is told by their content, as
    batches do; where there are too many rows to read, these counts must do.

    `table` as `Table.partitions` gives it, `models` are `PARTITION_MODEL` rows of the run before.
    """
    if models is None:
        return set(), True
    known = models.set_index("partition")
    left = table[table["partition"].isin(plan.train["partition"])]
    same = (left["last_labelled"] <= seen) & (left["labelled"] == left["partition"].map(known["rows"]))
    alike = left[same & left["partition"].map(known["estimator"]).notna()]
    if not len(alike) or int(alike["labelled"].sum()) > HASHED_ROWS:
        return set(alike["partition"]), not len(alike)
    found: set[str] = set()
    for bucket, group in alike.groupby("bucket"):
        names = list(group["partition"])
        frame = space.table(use_case).read(version, int(str(bucket)), names, labelled=True)
        rows, parts = labelled_rows(frame, use_case)
        now = {name: rows.part(parts[name]).data_hash() for name in names if name in parts}
        found |= {name for name, digest in now.items() if digest == known.loc[name, "data_hash"]}
    return found, True


def models_after(plan: Plan, min_rows: int) -> pd.DataFrame:
    """`PARTITION_MODEL` rows as they will be, as far as further planning asks, when all of the plan's fits succeed."""
    enough = plan.train["rows"] >= min_rows
    trained = pd.DataFrame({"partition": plan.train["partition"], "rows": plan.train["rows"], "reason": ""})
    trained["outcome"] = enough.map({True: PartitionOutcome.TRAINED.value, False: PartitionOutcome.REJECTED.value})
    trained["estimator"] = enough.map({True: "any", False: None})
    return pd.concat([trained.reindex(columns=list(PARTITION_MODEL)), plan.settled], ignore_index=True)


def tenant_wide_to_keep(
    space: Space, use_case: UseCase, previous: Run | None, partitions: pd.DataFrame, look_back: bool
) -> Run | None:
    """The run whose tenant-wide model is taken over; None when it is to be fitted (again). `partitions` as
    `Table.partitions` gives them."""
    if previous is None:
        return None
    if look_back:
        return previous
    model: TenantWideModel = load_tenant_wide(space, use_case.id, bundle_run(previous))
    due = model.is_due(int(partitions["labelled"].sum()), use_case.training.tenant_wide.refresh_growth)
    return None if due else previous


def tenant_wide_rows(space: Space, intention: Intention) -> int:
    """How many rows the tenant-wide model of such a run is fitted on; 0 when it is taken over."""
    partitions = space.table(intention.use_case).partitions(intention.version)
    look_back = intention.selection.again
    source = original_run(space, intention.use_case, intention.version) if look_back else intention.previous
    if tenant_wide_to_keep(space, intention.use_case, source, partitions, look_back) is not None:
        return 0
    return min(int(partitions["labelled"].sum()), intention.use_case.training.tenant_wide.max_rows)
