"""CSV files: block by block, typed at once where the block is clean, as text cell by cell where it is not."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from tasks.domain.contract import ColumnType
from tasks.domain.errors import UnreadableUpload
from tasks.domain.names import Purpose
from tasks.domain.use_case import UseCase
from tasks.ingestion.chunks import CHUNK_ROWS, Broken, Chunk, Lines, rows_at, typed_frame
from tasks.ingestion.columns import NULLS, check_columns
from tasks.ingestion.streams import UploadedFile, record_blocks
from tasks.ports import ARROW_TYPES

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}

FAST_TYPES = ARROW_TYPES | {ColumnType.TIMESTAMP: pa.timestamp("us")}
"""Types of the fast path; timestamps with an offset take the other one."""


@dataclass(frozen=True)
class Layout:
    """How the file is written: its delimiter, its header, and which columns are read."""

    delimiter: str
    header: tuple[str, ...]
    needed: tuple[str, ...]


def read_csv(source: UploadedFile, use_case: UseCase, purpose: Purpose) -> Iterator[Chunk]:
    """Chunks of a CSV file; the header is line 1. Raises `UnreadableUpload`, `ContractBroken`."""
    layout: Layout | None = None
    line = 2
    for block in record_blocks(source, use_case.contract.encoding, quotes=True):
        if layout is None:
            head, _, block = block.lstrip(b"\r\n").partition(b"\n")
            layout = _layout(head.decode(), use_case, purpose, source)
        if not block.strip():
            continue
        for chunk in _chunks(block, layout, use_case, line):
            line += len(chunk.lines) + len(chunk.broken)
            yield chunk


def _layout(head: str, use_case: UseCase, purpose: Purpose, source: UploadedFile) -> Layout:
    """The delimiter is the one that finds most of the contract's columns in the header."""
    wanted = set(use_case.columns_for(purpose))
    best, best_found = ",", (-1, -1)
    for delimiter in DELIMITERS:
        names = _split(head, delimiter)
        found = (len(wanted & set(names)), len(names))
        if found > best_found:
            best, best_found = delimiter, found
    header = _split(head, best)
    if best_found[0] == 0 and len(header) == 1:
        raise UnreadableUpload(
            "the header cannot be split into the contract's columns",
            where=source.name,
            expected=f"{', '.join(sorted(wanted)[:8])} ..., separated by {', '.join(DELIMITERS.values())}",
            found=source.quoted(header[0][:120]),
            hint="write the file with one of these delimiters, the column names in its first line",
        )
    return Layout(best, tuple(header), check_columns(header, use_case, purpose, source))


def _split(head: str, delimiter: str) -> list[str]:
    csv.field_size_limit(max(csv.field_size_limit(), len(head) + 1))
    rows = list(csv.reader([head.rstrip("\r\n")], delimiter=delimiter))
    return [name.strip() for name in rows[0]] if rows else [""]


def _chunks(block: bytes, layout: Layout, use_case: UseCase, line: int) -> Iterator[Chunk]:
    broken: list[Broken] = []
    try:
        table = _typed(block, layout, use_case)
        lines: Lines = np.arange(line, line + len(table), dtype=np.int64)
    except pa.ArrowInvalid:
        table, skipped = _text(block, layout)
        lines, broken = _numbered(len(table), skipped, layout, line)
    texts: list[pa.Table] = []

    def raw_at(offset: int, at: Lines) -> list[dict[str, object]]:
        if not texts:  # only blocks with bad rows are parsed once more, to show their text
            texts.append(_text(block, layout)[0])
        return rows_at(texts[0], at + offset)

    for start in range(0, max(len(table), 1), CHUNK_ROWS):
        part = table.slice(start, CHUNK_ROWS)
        frame = typed_frame({name: part[name] for name in layout.needed}, use_case)
        here = broken if start == 0 else []
        yield Chunk(frame, lines[start : start + CHUNK_ROWS], partial(raw_at, start), here)


def _typed(block: bytes, layout: Layout, use_case: UseCase) -> pa.Table:
    """The block's rows, typed. Raises `pyarrow.ArrowInvalid` when a cell or a row does not fit."""
    columns = use_case.contract.columns
    options = pacsv.ConvertOptions(
        column_types={name: FAST_TYPES[columns[name].type] for name in layout.needed},
        include_columns=list(layout.needed),
        null_values=NULLS,
        true_values=["true", "True", "TRUE", "1", "yes", "Yes", "YES"],
        false_values=["false", "False", "FALSE", "0", "no", "No", "NO"],
        strings_can_be_null=False,
    )
    read = pacsv.ReadOptions(column_names=list(layout.header), use_threads=True)
    return pacsv.read_csv(io.BytesIO(block), read, _parsing(block, layout), options)


def _text(block: bytes, layout: Layout) -> tuple[pa.Table, list[tuple[int, int, str]]]:
    """The block's rows as text, and (number, fields, text) of records that have too few or too many fields."""
    skipped: list[tuple[int, int, str]] = []

    def skip(row: pacsv.InvalidRow) -> str:
        skipped.append((row.number, row.actual_columns, row.text))
        return "skip"

    options = pacsv.ConvertOptions(
        column_types=dict.fromkeys(layout.header, pa.string()),
        include_columns=list(layout.needed),
        strings_can_be_null=False,
    )
    # One thread: only then does a skipped record know its number. One block: numbers count from its start.
    read = pacsv.ReadOptions(column_names=list(layout.header), use_threads=False, block_size=len(block) + 1)
    parse = _parsing(block, layout)
    parse.invalid_row_handler = skip
    return pacsv.read_csv(io.BytesIO(block), read, parse, options), skipped


def _parsing(block: bytes, layout: Layout) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=b'"' in block)


def _numbered(
    rows: int, skipped: Sequence[tuple[int, int, str]], layout: Layout, line: int
) -> tuple[Lines, list[Broken]]:
    """Lines of the rows, around those of the skipped records."""
    everything = np.ones(rows + len(skipped), dtype=bool)
    broken = []
    for number, fields, text in skipped:
        everything[number - 1] = False
        rule = f"record has {fields} fields, the header has {len(layout.header)}"
        broken.append(Broken(line + number - 1, rule, text))
    return line + np.flatnonzero(everything), broken
