"""Rows in, answers out."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from tasks.domain.use_case import UseCase
from tasks.ports import PREDICTION
from tasks.scorer import Scorer, row_keys


def answer_rows(frame: pd.DataFrame, use_case: UseCase, scorer: Scorer) -> pa.Table:
    """One `PREDICTION` row per row of `frame` (the contract's columns and `_partition`), sorted by partition and row
    key.

    The order makes a batch's file the same whichever attempt wrote it.
    """
    types = {name: column.type.value for name, column in use_case.contract.columns.items()}
    keys = row_keys(frame, use_case.contract.row_key, types)
    answers = scorer.predict_table(frame, names=frame["_partition"])
    table = answers.append_column("row_key", pa.array(keys, pa.string()))
    return table.select(list(PREDICTION)).sort_by([("partition", "ascending"), ("row_key", "ascending")])
