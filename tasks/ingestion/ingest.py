"""One uploaded file into one use case's table: read, validate, quarantine, stage, merge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tasks.domain.contract import ColumnType
from tasks.domain.errors import TooManyBadRows, UnreadableUpload
from tasks.domain.names import Purpose
from tasks.domain.outcome import RowReceipt
from tasks.domain.run import Upload
from tasks.domain.use_case import UseCase
from tasks.ingestion.chunks import Chunk
from tasks.ingestion.quarantine import DUPLICATE, QUARANTINED, REPEATED, UNKNOWN, Quarantine
from tasks.ingestion.readers import read_ahead, read_chunks, work_behind
from tasks.ingestion.streams import UploadedFile
from tasks.personal import Pseudonyms, without_personal
from tasks.ports import UNPARSED, Files, Staging, Validator
from tasks.scorer import partition_names

MOST_NAMED = 10_000

LONGEST_NAME = 2_500
"""Bytes of a partition's name: PostgreSQL indexes it, and refuses longer ones."""
SHORT = 30
"""Characters of a key, whose twelve bytes each make no name too long, even of five columns; looked at first."""
TOO_LONG = f"the partition's name is longer than {LONGEST_NAME:,} bytes"


class Ingested(NamedTuple):
    """What became of an upload.

    `rules`: rows per broken rule (a row that breaks two counts under both); `quarantine` and `report`: paths under the
    tenant's root, None where nothing was quarantined; `quarantined_partitions`: those that quarantined rows name (the
    first ten thousand), because one that has no other row must still be accounted for.
    """

    dataset_version: int
    receipt: RowReceipt
    rules: Mapping[str, int]
    quarantine: str | None
    report: str
    quarantined_partitions: tuple[str, ...]


def ingest(
    path: Path,
    use_case: UseCase,
    upload: Upload,
    validator: Validator,
    staging: Staging,
    files: Files,
    pseudonyms: Pseudonyms,
    scratch: Path | None = None,
) -> Ingested:
    """Every row of the file ends in exactly one of accepted, quarantined, duplicate; one commit merges the accepted.
    Rules are checked on what the file says; of personal columns, nothing raw goes any further than that.

    Called again for the same upload, it finds that commit and returns the same receipt. Raises `UnreadableUpload`,
    `ContractBroken`, and `TooManyBadRows` when more rows are bad than the contract tolerates, or all, or no row has a
    target: then nothing is merged, and quarantine and report are kept for inspection.
    """
    read = 0
    labelled = False
    named: set[str] = set()
    personal = use_case.contract.personal

    def storable(frame: pd.DataFrame) -> pd.DataFrame:
        return without_personal(frame, use_case.contract, pseudonyms)

    with Quarantine(use_case.id, upload.upload_id, scratch, personal) as quarantine:
        source = UploadedFile(path, upload.filename, quotable=not personal)
        chunks = read_chunks(source, use_case, upload.purpose)
        with work_behind(lambda frame: staging.append(storable(frame))) as stage:
            for chunk in read_ahead(chunks):
                read += len(chunk.lines) + len(chunk.broken)
                labelled = labelled or _has_target(chunk.frame, use_case)
                good, refused = _judged(chunk, use_case, validator, quarantine)
                stage(good)
                if len(named) < MOST_NAMED:
                    named.update(_partitions_of(storable(refused), use_case))
        if not read:
            raise UnreadableUpload(
                "the file has a header but no rows", where=upload.filename, expected="at least one row"
            )
        for frame in staging.duplicates():
            quarantine.add_frame(frame, REPEATED, DUPLICATE)
        for frame in staging.unmatched():
            quarantine.add_frame(frame, UNKNOWN)
        kept, report = quarantine.keep(files), validator.report()
        if upload.purpose is not Purpose.SCORING and not labelled:
            raise TooManyBadRows(
                f"the target is empty in all {read:,} rows",
                where=upload.filename,
                expected=f"values in {', '.join(use_case.target_columns)}",
                hint="check that the right file was uploaded for this purpose",
            )
        bad = quarantine.rows[QUARANTINED]
        if bad == read or bad / read > use_case.contract.max_bad_rows:
            tolerated = f"at most {use_case.contract.max_bad_rows:.1%} (contract.max_bad_rows), and one good row"
            raise TooManyBadRows(
                f"{bad:,} of {read:,} rows are bad",
                where=upload.filename,
                expected=tolerated,
                found="; ".join(f"{rows:,} × {rule}" for rule, rows in quarantine.rules.most_common(5)),
                hint=f"nothing was merged; the rows are in {kept}, the report is {report}",
            )
        merged = staging.merge()
        receipt = RowReceipt(read=read, accepted=merged.accepted, quarantined=bad, duplicate=merged.duplicate)
        return Ingested(merged.version, receipt, dict(quarantine.rules), kept, report, tuple(sorted(named)))


def _has_target(frame: pd.DataFrame, use_case: UseCase) -> bool:
    present = [name for name in use_case.target_columns if name in frame.columns]
    return bool(present) and bool(frame[present].notna().all(axis=1).any())


def _judged(
    chunk: Chunk, use_case: UseCase, validator: Validator, quarantine: Quarantine
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The chunk's good rows, with `_line`, and its bad ones; those, and broken records, go to quarantine."""
    broken = chunk.broken
    quarantine.add([b.line for b in broken], [[b.rule] for b in broken], [b.text for b in broken])
    frame = chunk.frame.drop(columns=UNPARSED).assign(_line=chunk.lines)
    if not len(frame):
        return frame, frame
    found = pd.concat([validator.check(chunk.frame), _too_long(frame, use_case)])
    if not len(found):
        return frame, frame.iloc[:0]
    by_row = found.groupby("row", sort=True)["rule"].agg(list)
    bad = by_row.index.to_numpy().astype(np.int64)
    quarantine.add(chunk.lines[bad].tolist(), by_row.tolist(), chunk.raw(bad))
    good = np.ones(len(frame), dtype=bool)
    good[bad] = False
    return frame.loc[good], frame.loc[bad]


def _too_long(frame: pd.DataFrame, use_case: UseCase) -> pd.DataFrame:
    """Rows, as a validator gives them, whose partition's name is too long. A hash takes the place of personal text."""
    columns = use_case.contract.columns
    raw = [name for name in use_case.partition_by if name in frame and columns[name].personal is None]
    texts = [name for name in raw if columns[name].type is ColumnType.STRING]
    if not any((frame[name].str.len() > SHORT).any() for name in texts):
        return pd.DataFrame({"row": pd.Series(dtype="int64"), "rule": pd.Series(dtype="str")})
    names = partition_names(frame, raw, {name: column.type.value for name, column in columns.items()})
    return pd.DataFrame({"row": frame.index[names.str.len() > LONGEST_NAME], "rule": TOO_LONG})


def _partitions_of(rows: pd.DataFrame, use_case: UseCase) -> set[str]:
    """Names of the partitions that the rows name, whatever else is wrong with them, unless they can be none."""
    if not len(rows) or not set(use_case.partition_by) <= set(rows.columns):
        return set()
    keyed = rows.dropna(subset=list(use_case.partition_by))
    types = {name: column.type.value for name, column in use_case.contract.columns.items()}
    names = partition_names(keyed, use_case.partition_by, types).unique()
    return {name for name in names if len(name) <= LONGEST_NAME}
