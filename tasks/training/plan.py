"""What a training run has to do: which partitions to train, which models to take over, which have nothing to learn
from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from tasks.domain.errors import NotFound
from tasks.domain.names import Stage
from tasks.domain.outcome import PartitionOutcome
from tasks.domain.run import Run, RunStatus, run_key
from tasks.domain.use_case import UseCase
from tasks.ports import PARTITION_MODEL

NOT_SELECTED = "not selected, and no earlier model"
NOT_RENEWED = "not selected: its model is older than its rows"
"""Reasons by which a later run tells what a run of selected partitions left undone."""


@dataclass(frozen=True)
class Selection:
    """What the caller asked for: everything that changed (the default), only what failed, only these, or all again."""

    only_failed: bool = False
    partitions: tuple[str, ...] = ()
    again: bool = False

    @property
    def reuses(self) -> bool:
        """Whether a partition whose content is as before keeps its model."""
        return not (self.again or self.partitions)


@dataclass(frozen=True)
class Plan:
    """Every partition is in exactly one: `train` has `partition`, `bucket`, `rows`; `settled` has `PARTITION_MODEL`
    rows.
    """

    train: pd.DataFrame
    settled: pd.DataFrame


def training_key(use_case: UseCase, version: int, selection: Selection, runs: list[Run]) -> str:
    """Idempotency key of a training run.

    Who asks for some partitions, or for all again, wants a run whatever was finished before; so the latest finished run
    is part of the key then, and a run that was cut off is still found by it.
    """
    asked: tuple[object, ...] = ("changed",)
    if selection != Selection():
        finished = max((run.run_id for run in runs if run.status is RunStatus.FINISHED), default=0)
        asked = (selection.only_failed, selection.again, sorted(selection.partitions), finished)
    ours = recipe(use_case)
    latest = next((run for run in runs if run.status is RunStatus.FINISHED and not run.receipt.get("look_back")), None)
    if latest is not None and any(latest.receipt.get(key) != value for key, value in ours.items()):
        asked = (*asked, latest.run_id)  # back to an earlier contract: its finished run must not pass for this one
    return run_key(Stage.TRAINING, use_case.id, version, *ours.values(), *asked)


def recipe(use_case: UseCase) -> dict[str, object]:
    """What besides the rows decides a model; runs with one recipe may share models."""
    return {"contract_hash": use_case.contract_hash(), "training_version": use_case.training.version}


def plan_run(
    partitions: pd.DataFrame,
    previous: pd.DataFrame | None,
    previous_seq: int,
    selection: Selection,
    quarantined: Iterable[str] = (),
) -> Plan:
    """Sorts the partitions of a dataset version.

    `partitions`: as `Table.partitions` gives them. `previous`: `PARTITION_MODEL` rows of the latest run with the same
    contract and training version, which had seen uploads up to `previous_seq`; None without one. `quarantined`:
    partitions that quarantined rows name; those without any other row are settled too. What cannot be told
    from counts is told in the batch, by content. Raises `NotFound` for a selected partition that does not exist.
    """
    labelled = partitions["labelled"] > 0
    asked = _asked(partitions, previous, selection)
    untrainable = partitions[~labelled]
    train = labelled & asked
    earlier = previous if previous is not None else pd.DataFrame(columns=list(PARTITION_MODEL))
    known = earlier.set_index("partition")
    if previous is not None and not selection.again:
        has_model = partitions["partition"].map(known["estimator"]).notna()
        left_undone = partitions["partition"].map(known["reason"]).isin([NOT_SELECTED, NOT_RENEWED])
        unchanged = (
            (partitions[["last_upload", "last_labelled"]].max(axis=1) <= previous_seq)
            & (partitions["labelled"] == partitions["partition"].map(known["rows"]))
            & ~left_undone
        )
        as_before = unchanged if not (selection.only_failed or selection.partitions) else ~asked
        kept = labelled & has_model & as_before
        # a partition that was rejected for its few rows is rejected again while they stay the same
        rejected = labelled & unchanged & (partitions["partition"].map(known["outcome"]) == PartitionOutcome.REJECTED)
        train &= ~kept & ~rejected
    else:
        kept = rejected = unchanged = pd.Series(False, index=partitions.index)
    left = labelled & ~train & ~kept & ~rejected
    settled = pd.concat(
        [
            _reused(partitions[kept & unchanged], known),
            _reused(partitions[kept & ~unchanged], known).assign(reason=NOT_RENEWED),
            _rows(untrainable, PartitionOutcome.REJECTED, "no row with a target"),
            _rows(
                _without_rows(quarantined, partitions), PartitionOutcome.REJECTED, "all of its rows are in quarantine"
            ),
            _again_rejected(partitions[rejected], known),
            _rows(partitions[left], PartitionOutcome.REJECTED, NOT_SELECTED),
        ],
        ignore_index=True,
    )
    return Plan(
        train=partitions.loc[train, ["partition", "bucket", "labelled"]].rename(columns={"labelled": "rows"}),
        settled=settled,
    )


def _asked(partitions: pd.DataFrame, previous: pd.DataFrame | None, selection: Selection) -> pd.Series:
    if selection.partitions:
        unknown = sorted(set(selection.partitions) - set(partitions["partition"]))
        if unknown:
            raise NotFound(
                f"there is no partition {unknown[0]!r}",
                expected=f"one of {len(partitions)}, such as {partitions['partition'].iloc[0]}",
                found=", ".join(unknown[:5]),
                hint="orchard models TENANT USE_CASE lists them",
            )
        return partitions["partition"].isin(list(selection.partitions))
    if selection.only_failed and previous is not None:
        failed = previous.loc[previous["outcome"] == PartitionOutcome.FAILED, "partition"]
        return partitions["partition"].isin(list(failed))
    return pd.Series(True, index=partitions.index)


def _without_rows(quarantined: Iterable[str], partitions: pd.DataFrame) -> pd.DataFrame:
    names = sorted(set(quarantined) - set(partitions["partition"]))
    return pd.DataFrame({"partition": pd.Series(names, dtype="str"), "labelled": 0})


def _rows(partitions: pd.DataFrame, outcome: PartitionOutcome, reason: str) -> pd.DataFrame:
    rows = pd.DataFrame({"partition": partitions["partition"], "rows": partitions["labelled"]})
    return rows.assign(outcome=outcome.value, reason=reason).reindex(columns=list(PARTITION_MODEL))


def _reused(partitions: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    rows = known.loc[list(partitions["partition"])].reset_index(names="partition")
    return rows.assign(outcome=PartitionOutcome.REUSED.value, seconds=0.0).reindex(columns=list(PARTITION_MODEL))


def _again_rejected(partitions: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    rows = known.loc[list(partitions["partition"])].reset_index(names="partition")
    return rows.assign(seconds=0.0).reindex(columns=list(PARTITION_MODEL))
