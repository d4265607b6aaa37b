"""Rows that are not merged, kept for inspection: `quarantine/{use_case}/{upload_id}.parquet`.

One row per bad or duplicate row: `line` (its place in the file), `outcome` (quarantined or duplicate), `rule` (what it
broke; several are joined by `; `), `row` (the row as the file has it, as JSON; personal cells are masked).
"""

from __future__ import annotations

import datetime as dt
import json
import math
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.domain.errors import StorageUnavailable
from tasks.ports import Files

SCHEMA = pa.schema([("line", pa.int64()), ("outcome", pa.string()), ("rule", pa.string()), ("row", pa.string())])

QUARANTINED, DUPLICATE = "quarantined", "duplicate"
MASKED = "(personal)"
"""In place of a personal cell, or of a record that cannot be told apart into cells."""

REPEATED = "row key comes again later in the file"
UNKNOWN = "row key was never seen in history or scoring"


def quarantine_path(use_case: str, upload_id: str) -> str:
    """Where an upload's quarantine is, under the tenant's root."""
    return f"quarantine/{use_case}/{upload_id}.parquet"


class Quarantine:
    """Collects rows in a local file; `keep` hands it to the lake. Memory is bounded by what one `add` brings. Cells of
    the columns in `personal` never reach it."""

    def __init__(
        self, use_case: str, upload_id: str, scratch: Path | None = None, personal: Collection[str] = ()
    ) -> None:
        self.path = quarantine_path(use_case, upload_id)
        self.rules: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self._personal = frozenset(personal)
        self._folder = tempfile.TemporaryDirectory(prefix="quarantine-", dir=scratch)
        self._file = Path(self._folder.name) / "rows.parquet"
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def add(
        self,
        lines: Sequence[int],
        rules: Sequence[Sequence[str]],
        rows: Sequence[Mapping[str, object] | str],
        outcome: str = QUARANTINED,
    ) -> None:
        """Adds rows, each with all rules that it broke."""
        if not len(lines):
            return
        self.rows[outcome] += len(lines)
        for broken in rules:
            self.rules.update(dict.fromkeys(broken, 1))
        table = pa.table(
            {
                "line": pa.array(lines, pa.int64()),
                "outcome": pa.repeat(outcome, len(lines)),
                "rule": pa.array(["; ".join(broken) for broken in rules], pa.string()),
                "row": pa.array([_json(self._masked(row)) for row in rows], pa.string()),
            },
            schema=SCHEMA,
        )
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._file, SCHEMA, compression="zstd")
            self._writer.write_table(table)
        except OSError as error:
            raise StorageUnavailable("disk full: quarantine could not be written", found=str(error)) from error

    def _masked(self, row: Mapping[str, object] | str) -> Mapping[str, object] | str:
        """The row without its personal cells; an empty one is still seen to be empty."""
        if not self._personal:
            return row
        if isinstance(row, str):
            return MASKED
        return {
            name: MASKED if name in self._personal and _plain(value) is not None else value
            for name, value in row.items()
        }

    def add_frame(self, frame: pd.DataFrame, rule: str, outcome: str = QUARANTINED) -> None:
        """Adds rows of a frame with `_line`, all for the same reason."""
        if len(frame):
            rows = frame.drop(columns="_line").to_dict("records")
            self.add(frame["_line"].tolist(), [[rule]] * len(frame), rows, outcome)  # type: ignore[arg-type]

    def keep(self, files: Files) -> str | None:
        """Stores what was collected, in place of what an earlier attempt stored; returns its path, None without
        rows.
        """
        if self._writer is None:
            files.delete(self.path)
            return None
        self._writer.close()
        files.put(self.path, self._file)
        return self.path


def read_quarantine(files: Files, use_case: str, upload_id: str, limit: int) -> list[dict[str, object]]:
    """At most `limit` rows that an upload left there, as the module says; empty where it left none."""
    rows: list[dict[str, object]] = (
        quarantined_rows(files, use_case, upload_id, 0, limit).select(SCHEMA.names).to_pylist()
    )
    return rows


def quarantined_rows(files: Files, use_case: str, upload_id: str, start: int, limit: int) -> pa.Table:
    """At most `limit` rows that an upload left there, from row `start` on: `SCHEMA`, and `place`, counted from 0."""
    path = quarantine_path(use_case, upload_id)
    found, begin = [SCHEMA.empty_table()], 0
    if files.exists(path):
        with files.local(path) as local, pq.ParquetFile(local) as file:
            for number in range(file.metadata.num_row_groups):
                end = begin + file.metadata.row_group(number).num_rows
                if end > start and begin < start + limit:
                    rows = file.read_row_group(number)
                    found.append(rows.slice(max(start - begin, 0), start + limit - max(start, begin)))
                begin = end
    table = pa.concat_tables(found)
    return table.append_column("place", pa.array(range(start, start + len(table)), pa.int64()))


def _json(row: Mapping[str, object] | str) -> str:
    if isinstance(row, str):
        return json.dumps({"text": row})
    return json.dumps({name: _plain(value) for name, value in row.items()}, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, pd.Timestamp | dt.date):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool) else str(value)
