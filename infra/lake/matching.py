"""Which rows of an upload are there twice, and which are in the table already. Hashes only find candidates: rows are
compared by their real keys, so that a hash collision never drops or replaces a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from infra.lake.keys import Hashes, is_member, row_hashes
from infra.lake.snapshot import DataFile

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SLICE_ROWS = 8_000_000
"""Hashes that are sorted at once: 64 MB, and as much again for the sorted copy."""


class Matches(NamedTuple):
    """Rows of the upload that the table has: row `row[i]` of `files[file[i]]` has the key of row `position[i]`."""

    files: list[DataFile]
    file: Positions
    row: Positions
    position: Positions

    def of(self, index: int) -> tuple[Positions, Positions]:
        """(rows, positions) of one file, in the order of its rows."""
        mine = np.flatnonzero(self.file == index)
        mine = mine[np.argsort(self.row[mine])]
        return self.row[mine], self.position[mine]

    def touched(self) -> list[int]:
        """Indices of files with at least one such row."""
        return [int(index) for index in np.unique(self.file)]


def latest_of_each_key(rows: pa.Table, hashes: Hashes, row_key: Sequence[str]) -> Mask:
    """True for the last row (by `_line`) of every row key, False for the earlier ones."""
    keep = np.ones(len(rows), dtype=bool)
    for chosen in _slices(hashes):
        values = np.sort(hashes[chosen])
        repeated = np.unique(values[1:][values[1:] == values[:-1]])
        if not len(repeated):
            continue
        candidates = chosen[is_member(hashes[chosen], repeated)]
        frame = _keys(rows, candidates, row_key)
        frame["_line"] = rows["_line"].take(pa.array(candidates)).to_numpy()
        frame = frame.sort_values("_line")
        earlier = frame.duplicated(list(row_key), keep="last")
        keep[frame.loc[earlier, "_position"].to_numpy()] = False
    return keep


def find(
    rows: pa.Table,
    hashes: Hashes,
    keep: Mask,
    row_key: Sequence[str],
    files: Sequence[DataFile],
    read: Callable[[DataFile, Sequence[str]], pa.Table],
) -> Matches:
    """Matches the kept rows of an upload with the files' rows; of these only key columns are read, one file at a
    time.
    """
    found: list[pd.DataFrame] = []
    for chosen in _slices(hashes):
        chosen = chosen[keep[chosen]]
        wanted = np.sort(hashes[chosen])
        stored: list[pd.DataFrame] = []
        hit_hashes: list[Hashes] = []
        for index, file in enumerate(files):
            keys = read(file, row_key)
            candidates = row_hashes(keys, row_key)
            hits = np.flatnonzero(is_member(candidates, wanted))
            if len(hits):
                frame = _keys(keys, hits, row_key).rename(columns={"_position": "_row"})
                stored.append(frame.assign(_file=index))
                hit_hashes.append(candidates[hits])
        if stored:
            mine = chosen[is_member(hashes[chosen], np.unique(np.concatenate(hit_hashes)))]
            incoming = _keys(rows, mine, row_key)
            joined = pd.concat(stored).merge(incoming, on=list(row_key), how="inner")
            found.append(joined[["_file", "_row", "_position"]])
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return Matches(list(files), none, none, none)
    all_found = pd.concat(found)
    return Matches(list(files), *(all_found[name].to_numpy(dtype=np.int64) for name in all_found))


def _slices(hashes: Hashes) -> list[Positions]:
    """Positions of the rows, split by hash so that equal keys stay together and each slice can be sorted in memory."""
    count = -(-len(hashes) // SLICE_ROWS) if len(hashes) else 0
    if count <= 1:
        return [np.arange(len(hashes))] * count
    which = hashes % np.uint64(count)
    return [np.flatnonzero(which == number) for number in range(count)]


def _keys(rows: pa.Table, positions: Positions, row_key: Sequence[str]) -> pd.DataFrame:
    chosen = rows.select(list(row_key)).take(pa.array(positions))
    frame: pd.DataFrame = chosen.to_pandas(date_as_object=False)
    frame["_position"] = positions
    return frame
