"""A few rows of a use case's table: examples for a model's signature, and what a release is tried with."""

from __future__ import annotations

import pandas as pd

from tasks.domain.use_case import UseCase
from tasks.ports import Table

PARTITIONS = 4


def example_rows(table: Table, use_case: UseCase, version: int, rows: int) -> pd.DataFrame:
    """At most `rows` rows of a few partitions of one bucket, the same ones whenever asked for the same version."""
    partitions = table.partitions(version)
    bucket = int(partitions["bucket"].iloc[0])
    names = list(partitions.loc[partitions["bucket"] == bucket, "partition"].head(PARTITIONS))
    frame = table.read(version, bucket, names).sort_values(list(use_case.contract.row_key), ignore_index=True)
    chosen = frame.iloc[:: max(1, len(frame) // rows)].head(rows).reset_index(drop=True)
    for name, kind in chosen.dtypes.items():  # as callers of a model have them
        if isinstance(kind, pd.Int64Dtype):
            chosen[name] = chosen[name].astype("float64")
        elif isinstance(kind, pd.BooleanDtype):
            chosen[name] = chosen[name].astype("object").where(chosen[name].notna(), None)
    return chosen
