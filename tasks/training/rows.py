"""Labelled rows as numbers: read, hashed and sorted once per batch, then cut into partitions by slices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.domain.use_case import UseCase
from tasks.scorer import (
    Features,
    Floats,
    Integers,
    class_positions,
    derive,
    encode,
    partition_names,
    to_number,
)

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Rows:
    """Labelled rows in the order (time, row key): one partition's, or those of many, partition by partition.

    `target` is what models fit: the target less the baseline column, or the position of the class. `times`
    is None without a time column: then the rows are in the order of `key_hashes`. `positions` are places in
    the frame they come from.
    """

    features: Features
    target: Floats
    times: Floats | None
    key_hashes: Hashes
    content_hashes: Hashes
    positions: Integers

    def __len__(self) -> int:
        return len(self.target)

    def part(self, which: slice) -> Rows:
        """Some of the rows, as a view."""
        return Rows(
            self.features.rows(which),
            self.target[which],
            None if self.times is None else self.times[which],
            self.key_hashes[which],
            self.content_hashes[which],
            self.positions[which],
        )

    def data_hash(self) -> str:
        """Digest of the rows' content that does not depend on their order."""
        return hashlib.sha256(np.sort(self.content_hashes).tobytes()).hexdigest()[:32]


def labelled_rows(frame: pd.DataFrame, use_case: UseCase, *, keys: bool = False) -> tuple[Rows, dict[str, slice]]:
    """The labelled rows of a frame, and where each partition's are, in order of name.

    `frame` has the contract's columns, and `_partition` where it comes from the use case's table; it is not
    changed. A row counts as labelled when its target, and its baseline where the use case has one, is a
    finite number or a known class. With `keys`, the columns of `partition_by` are categorical features too.
    """
    contract = [name for name in use_case.contract.columns if name in frame.columns]
    names = frame["_partition"] if "_partition" in frame else partition_names(frame, use_case.partition_by)
    column_hashes = {name: _hashes(frame[name]) for name in contract}
    derived = use_case.model_dump(mode="json", by_alias=True, include={"derived"})["derived"]
    frame = derive(frame, derived)
    target = fitted_target(frame, use_case)
    codes, partitions = pd.factorize(names, sort=True)
    key_hashes = _combined([column_hashes[name] for name in use_case.contract.row_key])
    order = np.flatnonzero(~np.isnan(target) & (codes >= 0))
    ranks: list[NDArray[Any]] = [key_hashes[order], codes[order]]
    times = None
    if use_case.time is not None:
        times = to_number(frame[use_case.time])
        times = np.where(np.isnan(times), -np.inf, times)  # an unknown time must not pass for the latest
        ranks.insert(1, times[order])
    order = order[np.lexsort(ranks)]
    categorical = [*use_case.features.categorical, *(use_case.partition_by if keys else ())]
    rows = Rows(
        encode(frame, use_case.features.numeric, categorical).rows(order),
        target[order],
        None if times is None else times[order],
        key_hashes[order],
        _combined(column_hashes.values())[order],
        order,
    )
    bounds = np.searchsorted(codes[order], np.arange(len(partitions) + 1))
    return rows, {name: slice(int(bounds[n]), int(bounds[n + 1])) for n, name in enumerate(partitions)}


def fitted_target(frame: pd.DataFrame, use_case: UseCase) -> Floats:
    """Per row what models fit: target less baseline, or the position of the class; NaN if unlabelled.

    `frame` has its derived columns.
    """
    column = frame[use_case.target]
    if use_case.classes:
        return class_positions(column, use_case.classes)
    target = to_number(column)
    return target if use_case.baseline is None else target - to_number(frame[use_case.baseline])


def _hashes(column: pd.Series) -> Hashes:
    return pd.util.hash_pandas_object(column, index=False).to_numpy().astype(np.uint64, copy=False)


def _combined(columns: Iterable[Hashes]) -> Hashes:
    """One 64-bit hash per row out of one per column."""
    total: Hashes | None = None
    for column in columns:
        # An odd factor makes the order of columns count; unsigned overflow is intended.
        total = column.copy() if total is None else (total * np.uint64(0x9E3779B97F4A7C15)) ^ column
    if total is None:
        raise ValueError("no column to hash")
    return total
