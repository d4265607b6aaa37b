"""Live error: what was predicted against what came true."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.domain.outcome import Answer
from tasks.domain.use_case import UseCase
from tasks.metrics import row_losses
from tasks.ports import HEALTH
from tasks.scorer import class_positions, derive, row_keys, to_number


def live_error(actuals: pd.DataFrame, predictions: pa.Table, use_case: UseCase) -> pd.DataFrame:
    """One `HEALTH` row per partition that has both, sorted by partition.

    `actuals`: labelled rows of the use case's table. `predictions`: published `PREDICTION` rows with `run_id`; of
    several for one row key the latest run's counts. Losses are those of the use case's metric, per row, summed.
    """
    if actuals.empty or predictions.num_rows == 0:
        return pd.DataFrame(columns=list(HEALTH))
    spec = use_case.model_dump(mode="json", by_alias=True, include={"derived"})["derived"]
    types = {name: column.type.value for name, column in use_case.contract.columns.items()}
    known = derive(actuals, spec)
    truth = (
        class_positions(known[use_case.target], use_case.classes)
        if use_case.classes
        else to_number(known[use_case.target])
    )
    true = pd.DataFrame({"row_key": np.asarray(row_keys(actuals, use_case.contract.row_key, types)), "truth": truth})
    table = predictions.sort_by("run_id").append_column(
        "place", pa.array(np.arange(predictions.num_rows, dtype=np.int64))
    )
    predicted = table.select(["row_key", "partition", "answer", "place"]).to_pandas()
    joined = true.dropna().merge(predicted.drop_duplicates("row_key", keep="last"), on="row_key")
    if joined.empty:
        return pd.DataFrame(columns=list(HEALTH))
    rows = table.take(pa.array(joined["place"]))
    ours = _matrix(rows["probabilities"]) if use_case.classes else rows["prediction"].to_numpy()[:, None]
    target = joined["truth"].to_numpy()
    losses = pd.DataFrame(
        {
            "partition": joined["partition"],
            "rows": 1,
            "loss_sum": row_losses(use_case.metric, target, ours),
            "baseline_sum": row_losses(use_case.metric, target, _matrix(rows["baseline"])),
            "own_rows": (joined["answer"] == Answer.OWN.value).astype(int),
        }
    )
    known_losses = losses[np.isfinite(losses["loss_sum"]) & np.isfinite(losses["baseline_sum"])]
    health: pd.DataFrame = known_losses.groupby("partition", sort=True).sum().reset_index()
    return health.assign(metric=use_case.metric.value).reindex(columns=list(HEALTH))


def _matrix(lists: pa.ChunkedArray) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    values = lists.combine_chunks()
    flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False), dtype=np.float64)
    return flat.reshape(len(values), -1)
