"""The index of a bundle: one row per partition, and one for "*", saying who answers for it and where the
model is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.bundle.parts import ESTIMATORS, Place
from tasks.domain.outcome import Answer
from tasks.domain.use_case import Estimator

INDEX_SCHEMA = pa.schema(
    [
        ("partition", pa.string()),
        ("file", pa.string()),
        ("row_group", pa.int32()),
        ("row", pa.int32()),
        ("answer", pa.string()),
        ("fallback", pa.bool_()),
        ("naive", pa.list_(pa.float64())),
        ("source_run", pa.int64()),
        ("estimator", pa.string()),
    ]
)


class Entry(NamedTuple):
    """Who answers for a partition, and where the model is: a row of the index.

    `file` (relative to the bundle), `row_group` and `row` (within the row group) say where the answering
    model is; all three are None where the naive rule answers. `fallback`: that is for want of a promoted
    model of its own.
    """

    partition: str
    file: str | None
    row_group: int | None
    row: int | None
    answer: Answer
    fallback: bool
    naive: list[float]
    source_run: int
    estimator: Estimator


def own_entry(row: Place, tenant_wide: Place) -> Entry:
    """The entry of a partition that its own choice of estimator answers."""
    if row.estimator is Estimator.NAIVE:
        return Entry(row.partition, None, None, None, Answer.NAIVE, False, row.naive, row.source_run, row.estimator)
    if row.estimator is Estimator.TENANT_WIDE and tenant_wide.estimator is Estimator.NAIVE:
        return fallback_entry(row.partition, tenant_wide, row.naive)
    answer, model = Answer.OWN, row
    if row.estimator is Estimator.TENANT_WIDE:
        answer, model = Answer.TENANT_WIDE, tenant_wide
    return Entry(
        row.partition,
        model.file,
        model.row_group,
        model.row,
        answer,
        False,
        row.naive,
        model.source_run,
        row.estimator,
    )


def fallback_entry(partition: str, tenant_wide: Place, naive: list[float] | None = None) -> Entry:
    """The entry of a partition without a promoted model: the tenant-wide model answers, else the naive rule.

    `naive` is the partition's own naive rule, where one is known; else that of the whole tenant holds.
    """
    known = tenant_wide.naive if naive is None else naive
    if tenant_wide.estimator is Estimator.NAIVE:
        return Entry(partition, None, None, None, Answer.NAIVE, True, known, tenant_wide.source_run, Estimator.NAIVE)
    return Entry(
        partition,
        tenant_wide.file,
        tenant_wide.row_group,
        tenant_wide.row,
        Answer.TENANT_WIDE,
        True,
        known,
        tenant_wide.source_run,
        Estimator.TENANT_WIDE,
    )


def everyone_entry(tenant_wide: Place) -> Entry:
    """The entry of "*" itself, which answers for partitions never seen."""
    return fallback_entry(tenant_wide.partition, tenant_wide)._replace(fallback=False)


def read_index(folder: Path) -> dict[str, Entry]:
    """Entries by partition, "*" among them."""
    answers = {answer.value: answer for answer in Answer}
    return {
        row["partition"]: Entry(**{**row, "answer": answers[row["answer"]], "estimator": ESTIMATORS[row["estimator"]]})
        for row in pq.read_table(folder / "index.parquet").to_pylist()
    }


def write_index(folder: Path, entries: Iterable[Entry]) -> None:
    """Writes the index, sorted by partition. Raises `ValueError` on a partition that comes twice."""
    rows = sorted(entries, key=lambda entry: entry.partition)
    twice = [name for name, count in Counter(row.partition for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"the index has {len(twice)} partitions twice, e.g. {twice[0]}")
    arrays = [
        pa.array([getattr(value, "value", value) for value in column], field.type)
        for field, column in zip(INDEX_SCHEMA, zip(*rows, strict=True), strict=True)
    ]
    pq.write_table(pa.table(arrays, schema=INDEX_SCHEMA), folder / "index.parquet", compression="zstd")
