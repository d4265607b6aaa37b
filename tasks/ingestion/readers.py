"""Uploaded files as typed chunks: CSV, JSON lines, Parquet. Its bytes say what a file is, never its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.domain.errors import ContractBroken, UnreadableUpload
from tasks.domain.names import Purpose
from tasks.domain.use_case import UseCase
from tasks.ingestion.chunks import CHUNK_ROWS, Chunk, rows_at, typed_frame
from tasks.ingestion.columns import check_columns
from tasks.ingestion.csv_files import read_csv
from tasks.ingestion.json_lines import read_json_lines
from tasks.ingestion.streams import PARQUET, UploadedFile, check_unpacked, text_pieces, unpacked_limit


def read_chunks(source: UploadedFile, use_case: UseCase, purpose: Purpose) -> Iterator[Chunk]:
    """The file's rows in order. Memory is bounded by a block of text and a million rows.

    Raises `UnreadableUpload` when the file cannot be parsed, `ContractBroken` when its columns are not those of the
    contract.
    """
    with source.path.open("rb") as file:
        magic = file.read(4)
    if magic == PARQUET:
        return read_parquet(source, use_case, purpose)
    start = next(text_pieces(source, use_case.contract.encoding), b"")
    start = start.lstrip()[:200]
    if not start:
        raise UnreadableUpload("the file is empty", where=source.name, expected="a header and rows")
    if start.startswith(b"{"):
        return read_json_lines(source, use_case, purpose)
    if start.startswith(b"["):
        raise UnreadableUpload(
            "the file looks like one JSON array", where=source.name, expected="JSON lines: one object per line"
        )
    return read_csv(source, use_case, purpose)


def read_ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks; the next one is read, mostly outside the interpreter lock, while this one is worked on."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


@contextmanager
def work_behind(work: Callable[[pd.DataFrame], None]) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Hands frames to `work` in a thread, in order, while the caller prepares the next one; at most one waits.

    The block ends when all are done, and raises what `work` raised.
    """
    pending: Future[None] | None = None

    def hand_over(frame: pd.DataFrame) -> None:
        nonlocal pending
        if pending is not None:
            pending.result()
        pending = pool.submit(work, frame)

    with ThreadPoolExecutor(max_workers=1) as pool:
        yield hand_over
        if pending is not None:
            pending.result()


def _batches(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The file's rows in order. A reader over all row groups would keep what it has read until its end."""
    size = CHUNK_ROWS // 2
    groups: list[int] = []
    rows = 0
    for group in range(file.num_row_groups):
        groups.append(group)
        rows += file.metadata.row_group(group).num_rows
        if rows >= size:
            yield from file.iter_batches(size, groups, columns)
            groups, rows = [], 0
    if groups:
        yield from file.iter_batches(size, groups, columns)


def read_parquet(source: UploadedFile, use_case: UseCase, purpose: Purpose) -> Iterator[Chunk]:
    """Chunks of a Parquet file; rows count from 1."""
    try:
        with pq.ParquetFile(source.path) as file:
            needed = check_columns(file.schema_arrow.names, use_case, purpose, source)
            # One value, repeated, takes next to nothing in the file; in memory and on disk each takes about 8 bytes.
            check_unpacked(source, file.metadata.num_rows * len(needed) * 8, unpacked_limit(source))
            line = 1
            for batch in _batches(file, list(needed)):
                batch.validate(full=True)  # text that is no UTF-8 would fail whoever reads it first
                table = pa.Table.from_batches([batch])
                frame = typed_frame({name: table[name] for name in needed}, use_case)
                lines = np.arange(line, line + len(table), dtype=np.int64)
                line += len(table)
                yield Chunk(frame, lines, partial(rows_at, table))
    except (ContractBroken, UnreadableUpload):
        raise
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnreadableUpload(
            "the Parquet file is truncated or damaged",
            where=source.name,
            found=source.quoted(str(error)[:200]),
            hint="upload it again",
        ) from error
