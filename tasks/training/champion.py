"""What the champion would have said about rows that it has never seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.domain.use_case import UseCase
from tasks.metrics import row_losses
from tasks.scorer import Floats, Scorer, class_positions, derive, partition_names, to_number
from tasks.training.rows import Rows


@dataclass(frozen=True)
class Champion:
    """The release that serves now; `upload_seq` is the latest upload that its dataset version held."""

    scorer: Scorer
    upload_seq: int


def champion_losses(champion: Champion, frame: pd.DataFrame, rows: Rows, use_case: UseCase) -> Floats:
    """Per labelled row the loss of what serves now, NaN where the champion may have seen the target.

    `frame` is the one that `rows` come from, with the column `_labelled` of the use case's table.
    """
    losses = np.full(len(rows), np.nan)
    new = np.flatnonzero(to_number(frame["_labelled"])[rows.positions] > champion.upload_seq)
    if not len(new):
        return losses
    fresh = frame.iloc[rows.positions[new]]
    names = fresh["_partition"] if "_partition" in fresh else partition_names(fresh, use_case.partition_by)
    answers = champion.scorer.predict_table(fresh, names)
    derived = use_case.model_dump(mode="json", by_alias=True, include={"derived"})["derived"]
    target = derive(fresh, derived)[use_case.target]
    if use_case.classes:
        flat = answers["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        predicted = flat.reshape(len(new), -1)
        losses[new] = row_losses(use_case.metric, class_positions(target, use_case.classes), predicted)
    else:
        predicted = answers["prediction"].to_numpy()[:, None]
        losses[new] = row_losses(use_case.metric, to_number(target), predicted)
    return losses
