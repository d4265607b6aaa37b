"""Hashes of keys. Buckets and row hashes are stored or compared across uploads: their values must never change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

MAX_BUCKETS = 256
ROWS_PER_BUCKET = 250_000

Hashes = npt.NDArray[np.uint64]


def bucket_of(partition: str, buckets: int) -> int:
    """Bucket of a partition, by its canonical name. With powers of two, n buckets refine n/2 buckets."""
    return int.from_bytes(hashlib.blake2b(partition.encode(), digest_size=4).digest(), "big") % buckets


def buckets_for(rows: int) -> int:
    """How many buckets a table gets: a power of two, about 250,000 rows of its first upload in each, at most 256."""
    buckets = 1
    while buckets < MAX_BUCKETS and buckets * ROWS_PER_BUCKET < rows:
        buckets *= 2
    return buckets


def row_hashes(table: pa.Table, row_key: Sequence[str]) -> Hashes:
    """One 64-bit hash per row of its key columns. Equal keys have equal hashes; the converse must be verified."""
    combined = np.zeros(len(table), dtype=np.uint64)
    for name in row_key:
        combined = _mix(combined * np.uint64(0x9E3779B97F4A7C15) + _column_hashes(table[name]))
    return combined


def _column_hashes(column: pa.ChunkedArray) -> Hashes:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        coded = column.combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):  # an empty table
            return np.zeros(len(column), dtype=np.uint64)
        words = coded.dictionary.to_numpy(zero_copy_only=False).astype(object)
        hashes: Hashes = pd.util.hash_array(words, categorize=False)[coded.indices.to_numpy()]
        return hashes
    if pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(kind) or pa.types.is_boolean(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_floating(kind):  # adding zero makes -0.0, which equals 0.0, hash like it
        return _mix((pc.add(column, 0.0).to_numpy()).view(np.uint64))
    return _mix(column.to_numpy().astype(np.int64).view(np.uint64))


def _mix(values: Hashes) -> Hashes:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): spreads every bit over all others."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def is_member(values: Hashes, among: Hashes) -> npt.NDArray[np.bool_]:
    """Which values occur in a sorted array."""
    if not len(among):
        return np.zeros(len(values), dtype=bool)
    at = np.searchsorted(among, values)
    at[at == len(among)] = 0
    found: npt.NDArray[np.bool_] = among[at] == values
    return found
