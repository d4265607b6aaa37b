"""How many rows of each partition a data file holds. Data files never change, so what was counted is remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from infra.lake.snapshot import DataFile

COUNTED = ["_partition", "_upload", "_labelled"]
"""Columns that counting reads."""

PARTITION_COLUMNS = ["partition", "bucket", "rows", "labelled", "open", "last_upload", "last_labelled"]

REMEMBERED = 2_000
"""Files; about 100 kB each where a file holds a thousand partitions."""

_remembered: OrderedDict[tuple[str, str], pd.DataFrame] = OrderedDict()
_lock = threading.Lock()


def count_rows(rows: pa.Table, bucket: int) -> pd.DataFrame:
    """`PARTITION_COLUMNS` of rows of one bucket, which have `COUNTED`; one row per partition, in no order."""
    grouped = rows.group_by("_partition", use_threads=False).aggregate(
        [("_upload", "count"), ("_labelled", "count"), ("_upload", "max"), ("_labelled", "max")]
    )
    frame = pd.DataFrame({"partition": grouped["_partition"].cast(pa.string()).to_pandas(), "bucket": bucket})
    frame["rows"] = grouped["_upload_count"].to_numpy()
    frame["labelled"] = grouped["_labelled_count"].to_numpy()
    frame["open"] = frame["rows"] - frame["labelled"]
    frame["last_upload"] = grouped["_upload_max"].to_numpy()
    frame["last_labelled"] = pc.fill_null(grouped["_labelled_max"], 0).to_numpy()
    return frame


def count_files(url: str, files: Sequence[DataFile], read: Callable[[DataFile], pa.Table]) -> pd.DataFrame:
    """The same for whole files of one bucket of the table at `url`; only files new to this process are read."""
    counts = pd.concat([_counts_of(url, file, read) for file in files])
    if len(files) == 1:
        return counts
    how = {"bucket": "first", "rows": "sum", "labelled": "sum", "open": "sum"}
    return counts.groupby("partition", as_index=False, sort=False).agg(
        how | {"last_upload": "max", "last_labelled": "max"}
    )


def _counts_of(url: str, file: DataFile, read: Callable[[DataFile], pa.Table]) -> pd.DataFrame:
    key = (url, file.path)
    with _lock:
        known = _remembered.get(key)
    if known is None:
        known = count_rows(read(file), file.bucket)
    with _lock:
        _remembered[key] = known
        _remembered.move_to_end(key)
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    return known
