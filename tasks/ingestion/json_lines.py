"""JSON lines: one object per line. Clean blocks are parsed at once, others line by line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.json as pajson

from tasks.domain.contract import ColumnType
from tasks.domain.errors import UnreadableUpload
from tasks.domain.names import Purpose
from tasks.domain.use_case import UseCase
from tasks.ingestion.chunks import CHUNK_ROWS, Broken, Chunk, Lines, rows_at, typed_frame
from tasks.ingestion.columns import check_columns
from tasks.ingestion.streams import UploadedFile, record_blocks
from tasks.ports import ARROW_TYPES

HEAD_LINES = 1_000
"""Lines whose keys together are the file's columns: a key may be left out where its value is null."""

# Dates and times are read as text, and converted like those of any other file.
FAST_TYPES = ARROW_TYPES | {ColumnType.DATE: pa.string(), ColumnType.TIMESTAMP: pa.string()}


def read_json_lines(source: UploadedFile, use_case: UseCase, purpose: Purpose) -> Iterator[Chunk]:
    """Chunks of a JSON lines file; full lines count from 1. Raises `UnreadableUpload`,
    `ContractBroken`.
    """
    needed: tuple[str, ...] | None = None
    line = 1
    for block in record_blocks(source, use_case.contract.encoding, quotes=False):
        if needed is None:
            needed = check_columns(_keys(block, source.name), use_case, purpose, source)
        for chunk in _chunks(block, needed, use_case, line):
            line += len(chunk.lines) + len(chunk.broken)
            yield chunk


def _keys(block: bytes, where: str) -> list[str]:
    keys: dict[str, None] = {}
    for text in io.BytesIO(block).readlines(1 << 20)[:HEAD_LINES]:
        value = _object(text.decode())
        if value is not None:
            keys.update(dict.fromkeys(value))
    if not keys:
        raise UnreadableUpload("no line is a JSON object", where=where, expected='lines like {"store": 12, "sku": 7}')
    return list(keys)


def _object(text: str) -> dict[str, object] | None:
    """The object of a line; None where it is none, or has half of a character (`"\\ud83d"`), which is no text."""
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _chunks(block: bytes, needed: tuple[str, ...], use_case: UseCase, line: int) -> Iterator[Chunk]:
    columns = use_case.contract.columns
    schema = pa.schema([(name, FAST_TYPES[columns[name].type]) for name in needed])
    broken: list[Broken] = []
    try:
        table = pajson.read_json(
            io.BytesIO(block),
            pajson.ReadOptions(block_size=len(block) + 1),
            pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        if len(table) > block.count(b"\n") + 1:  # several objects on a line
            raise pa.ArrowInvalid
        lines: Lines = np.arange(line, line + len(table), dtype=np.int64)
    except pa.ArrowInvalid:
        table, lines, broken = _line_by_line(block, needed, line)
    for start in range(0, max(len(table), 1), CHUNK_ROWS):
        part = table.slice(start, CHUNK_ROWS)
        frame = typed_frame({name: part[name] for name in needed}, use_case)
        here = broken if start == 0 else []
        yield Chunk(
            frame,
            lines[start : start + CHUNK_ROWS],
            partial(rows_at, part),
            here,
        )


def _line_by_line(block: bytes, needed: tuple[str, ...], line: int) -> tuple[pa.Table, Lines, list[Broken]]:
    rows: list[Mapping[str, object]] = []
    lines, broken = [], []
    for text in block.decode().split("\n"):
        if not text.strip():
            continue
        value = _object(text)
        if value is None:
            broken.append(Broken(line, "record is not a JSON object", text))
        else:
            rows.append(value)
            lines.append(line)
        line += 1
    arrays = [pa.array([_cell(row.get(name)) for row in rows], pa.string()) for name in needed]
    return pa.table(arrays, names=list(needed)), np.array(lines, dtype=np.int64), broken


def _cell(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
