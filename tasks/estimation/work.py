"""What a run would do, as units of work: how many partitions, of how many rows, in how many batches."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tasks.batches import plan_batches
from tasks.estimation.units import Kind, Unit

NEW_BUCKETS = 16
"""Partitions that a table does not have yet are taken to be spread over so many buckets."""

BY_COUNTS = "what is to be reused was told by counts of rows, not by their content: there are too many to read"


@dataclass(frozen=True)
class Work:
    """What is to be done for one use case. `models` are written, those of reused partitions among them; `doubt` is how
    far off the amount of work itself may be (as a standard deviation of its logarithm), where files were not counted.
    """

    units: tuple[Unit, ...] = ()
    uploads: int = 0
    file_bytes: int = 0
    train: int = 0
    reuse: int = 0
    reject: int = 0
    rows_to_train: int = 0
    rows_to_score: int = 0
    models: int = 0
    doubt: float = 0.0
    notes: tuple[str, ...] = field(default=())

    def then(self, later: Work) -> Work:
        """Both, one after the other. What is trained adds up; what is reused and rejected is the later one's, unless
        that trains nothing at all."""
        last = later if later.train + later.reuse + later.reject else self
        return Work(
            units=self.units + later.units,
            uploads=self.uploads + later.uploads,
            file_bytes=self.file_bytes + later.file_bytes,
            train=self.train + later.train,
            reuse=last.reuse,
            reject=last.reject,
            rows_to_train=self.rows_to_train + later.rows_to_train,
            rows_to_score=self.rows_to_score + later.rows_to_score,
            models=self.models + later.models,
            doubt=max(self.doubt, later.doubt),
            notes=self.notes + tuple(note for note in later.notes if note not in self.notes),
        )


def training_work(
    train: pd.DataFrame,
    settled: pd.Series,
    tenant_wide_rows: int,
    min_rows: int,
    max_batches: int,
    same: Collection[str] = (),
) -> Work:
    """A training run with its promotion. `train`: `partition`, `bucket`, `rows`; of them, those with fewer than
    `min_rows` labelled rows are rejected, and those in `same` are read, and reused. `settled`: outcomes of the
    partitions that need no work."""
    sizes = dict(zip(train["partition"], train["rows"], strict=True))
    fitted = {name: rows for name, rows in sizes.items() if rows >= min_rows and name not in same}
    trained = list(fitted.values())
    reused = int((settled == "reused").sum()) + sum(name in sizes for name in same)
    partitions = len(sizes) + len(settled)
    changes = len(trained) > 0
    units = [
        Unit(Kind.TRAINING_BATCH, len(chosen), sum(chosen))
        for batch in plan_batches(0, train, max_batches)
        for chosen in [[fitted[name] for name in batch.partitions if name in fitted]]
    ]
    units.append(Unit(Kind.TRAINING, partitions if changes else 0, tenant_wide_rows))
    units.append(Unit(Kind.PROMOTION, partitions if changes else 0))
    return Work(
        tuple(units),
        train=len(trained),
        reuse=reused,
        reject=partitions - len(trained) - reused,
        rows_to_train=int(sum(trained)),
        models=len(trained) + reused if changes else 0,
    )


def scoring_work(partitions: pd.DataFrame, max_batches: int) -> Work:
    """A scoring run. `partitions`: `partition`, `bucket`, `rows` of the rows to be scored."""
    batches = plan_batches(0, partitions, max_batches)
    units = [Unit(Kind.SCORING_BATCH, len(batch.partitions), batch.rows) for batch in batches]
    rows = int(partitions["rows"].sum())
    return Work((*units, Unit(Kind.SCORING, len(partitions), rows)), rows_to_score=rows)


def ingestion_work(rows: float, file_bytes: int, doubt: float = 0.0) -> Work:
    """The ingestion of one file."""
    return Work((Unit(Kind.INGESTION, 0, rows),), uploads=1, file_bytes=file_bytes, doubt=doubt)


def monitoring_work(rows: float) -> Work:
    """The comparison of predictions with one file of actuals."""
    return Work((Unit(Kind.MONITORING, 0, rows),))


def one_process(work: Work) -> Work:
    """The work, by a process that is started for it."""
    runs = sum(unit.kind.endswith("/rest") for unit in work.units)
    return Work((Unit(Kind.START, runs),)).then(work) if work.units else work


def counts_with_buckets(counts: pd.Series, table: pd.DataFrame) -> pd.DataFrame:
    """`partition`, `bucket`, `rows` of a file's rows; `table` (`partition`, `bucket`) knows where partitions are."""
    known = table.set_index("partition")["bucket"]
    new = pd.Series(np.arange(len(counts)) % NEW_BUCKETS, index=counts.index)
    buckets = counts.index.to_series().map(known).fillna(new).astype("int64")
    return pd.DataFrame({"partition": counts.index, "bucket": buckets.to_numpy(), "rows": counts.to_numpy()})


def table_after(table: pd.DataFrame, counts: pd.DataFrame, upload_seq: int) -> pd.DataFrame:
    """The table's partitions as they are once a history file is merged. `table` as `Table.partitions` gives it,
    `counts` as `counts_with_buckets` does. A row that replaces another is counted as one more."""
    added = counts.assign(labelled=counts["rows"], open=0, last_upload=upload_seq, last_labelled=upload_seq)
    both = pd.concat([table, added]) if len(table) else added
    how = {"bucket": "first", "rows": "sum", "labelled": "sum", "open": "sum"}
    how |= {"last_upload": "max", "last_labelled": "max"}
    return both.groupby("partition", as_index=False, sort=False).agg(how).sort_values(["bucket", "partition"])


@dataclass(frozen=True)
class Guess:
    """Rows of a file that was not counted, and how sure that is (`doubt`, as `Work` has it)."""

    rows: int
    doubt: float
    why: str


BYTES_PER_ROW = 60.0
"""Of a file, where none was seen yet."""


def rows_by_size(filename: str, size_bytes: int, past: pd.DataFrame) -> Guess:
    """By the bytes per row of earlier files: of those with the same ending, else of all. `past`: `filename`,
    `size_bytes`, `rows_read`."""
    ending = filename.rpartition(".")[2].lower()
    alike = past[past["filename"].str.lower().str.endswith(f".{ending}")] if len(past) else past
    chosen = alike if len(alike) else past
    if not len(chosen):
        return Guess(max(1, round(size_bytes / BYTES_PER_ROW)), math.log(3), f"{BYTES_PER_ROW:.0f} bytes a row assumed")
    each = np.log(chosen["size_bytes"].astype("float64") / chosen["rows_read"])
    doubt = float(each.std(ddof=1)) if len(each) > 1 else 0.3
    rows = max(1, round(size_bytes * float(chosen["rows_read"].sum()) / float(chosen["size_bytes"].sum())))
    return Guess(rows, doubt, f"by the bytes per row of {len(chosen)} earlier files")


TOUCHED_ROWS, TOUCHED_DOUBT = 1000.0, math.log(3)
"""Rows of a file per partition that it touches, and how far off that may be, where no file was seen yet."""


def rows_per_touched(units: pd.DataFrame) -> tuple[float, float]:
    """How many rows of a file there are per partition that is trained because of it, by earlier files; and the spread
    of that. `units`: `job`, `kind`, `partitions`, `rows`."""
    sums = units.groupby(["job", "kind"])[["partitions", "rows"]].sum()
    kinds = sums.index.get_level_values("kind")
    files = sums.loc[kinds == Kind.INGESTION, "rows"].droplevel("kind")
    models = sums.loc[kinds == Kind.TRAINING_BATCH, "partitions"].droplevel("kind")
    each = (files / models).replace(np.inf, np.nan).dropna()
    logs = np.log(each[each > 0].to_numpy(dtype=np.float64))
    if not len(logs):
        return TOUCHED_ROWS, TOUCHED_DOUBT
    return float(np.exp(np.median(logs))), float(logs.std(ddof=1)) if len(logs) > 1 else TOUCHED_DOUBT / 2


def spread_evenly(rows: int, partitions: Sequence[str], rows_per_partition: float) -> pd.Series:
    """Rows of a file that was not counted, over as many partitions as earlier files of its size touched: some of the
    known ones, evenly chosen, and new ones (`new-1` …) where there are not enough."""
    wanted = max(1, round(rows / max(1.0, rows_per_partition)))
    places = np.linspace(0, len(partitions) - 1, min(wanted, len(partitions))).round().astype(int)
    names = [partitions[place] for place in places] if len(partitions) else []
    if not names:
        names = [f"new-{number}" for number in range(1, wanted + 1)]
    share, rest = divmod(rows, len(names))
    return pd.Series([share + (number < rest) for number in range(len(names))], index=names)
