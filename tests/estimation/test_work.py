"""What is to be done, counted by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from tasks.estimation.units import Kind, Unit
from tasks.estimation.work import (
    Work,
    counts_with_buckets,
    ingestion_work,
    rows_by_size,
    rows_per_touched,
    scoring_work,
    spread_evenly,
    table_after,
    training_work,
)


def parts(**rows: int) -> pd.DataFrame:
    """Partitions of one bucket with so many rows."""
    return pd.DataFrame({"partition": list(rows), "bucket": 0, "rows": list(rows.values())})


def test_a_training_run_with_its_promotion() -> None:
    settled = pd.Series(["reused", "reused", "rejected"])
    work = training_work(parts(a=100, b=39, c=40), settled, 500, min_rows=40, max_batches=10)
    assert (work.train, work.reuse, work.reject, work.rows_to_train, work.models) == (2, 2, 2, 140, 4)
    assert work.units == (
        Unit(Kind.TRAINING_BATCH, 2, 140),
        Unit(Kind.TRAINING, 6, 500),
        Unit(Kind.PROMOTION, 6),
    )


def test_nothing_to_train_is_no_new_bundle() -> None:
    work = training_work(parts(), pd.Series(["reused"]), 0, min_rows=40, max_batches=10)
    assert work.units == (Unit(Kind.TRAINING, 0, 0), Unit(Kind.PROMOTION, 0))
    assert (work.train, work.reuse, work.models) == (0, 1, 0)


def test_scoring() -> None:
    frame = pd.DataFrame({"partition": ["a", "b", "c"], "bucket": [0, 0, 1], "rows": [10, 20, 5]})
    assert scoring_work(frame, 10) == Work(
        (Unit(Kind.SCORING_BATCH, 2, 30), Unit(Kind.SCORING_BATCH, 1, 5), Unit(Kind.SCORING, 3, 35)), rows_to_score=35
    )


def test_one_after_the_other() -> None:
    first = training_work(parts(a=100, b=100), pd.Series(["reused"]), 0, 40, 10).then(ingestion_work(7, 70, 0.5))
    both = first.then(training_work(parts(a=150), pd.Series(["reused", "reused"]), 0, 40, 10))
    assert (both.train, both.reuse, both.reject) == (3, 2, 0)
    assert (both.uploads, both.file_bytes, both.doubt) == (1, 70, 0.5)
    assert (first.train, first.reuse) == (2, 1), "an upload alone changes nothing about partitions"


def test_rows_by_the_size_of_earlier_files_of_the_same_ending() -> None:
    past = pd.DataFrame({
        "filename": ["a.csv", "b.CSV", "c.parquet"], "size_bytes": [1000, 3000, 100], "rows_read": [100, 300, 100],
    })  # fmt: skip
    guess = rows_by_size("new.csv", 500, past)
    assert (guess.rows, guess.doubt) == (50, 0.0)
    assert "2 earlier files" in guess.why
    assert rows_by_size("new.parquet", 500, past).rows == 500
    assert rows_by_size("new.csv.gz", 410, past).rows == 50, "of all: 4,100 bytes had 500 rows"
    unknown = rows_by_size("new.csv", 600, past.iloc[:0])
    assert (unknown.rows, unknown.doubt) == (10, math.log(3))


def test_rows_of_a_file_by_partition_that_it_touches() -> None:
    units = pd.DataFrame(
        [("j1", "ingestion/rest", 0, 100), ("j1", "training/batch", 6, 99), ("j1", "training/batch", 4, 70),
         ("j2", "ingestion/rest", 0, 80), ("j2", "training/batch", 2, 50), ("j3", "ingestion/rest", 0, 9)],
        columns=["job", "kind", "partitions", "rows"],
    )  # fmt: skip
    each, doubt = rows_per_touched(units)
    assert each == pytest.approx(20)  # between 10 and 40
    assert doubt == pytest.approx(math.log(4) / math.sqrt(2))
    assert rows_per_touched(units.iloc[-1:]) == (1000.0, math.log(3))


def test_rows_of_a_file_that_was_not_counted_are_spread_evenly() -> None:
    assert spread_evenly(41, ["a", "b", "c", "d", "e"], 20).to_dict() == {"a": 21, "e": 20}
    assert spread_evenly(100, ["a", "b"], 20).to_dict() == {"a": 50, "b": 50}
    assert spread_evenly(40, [], 20).to_dict() == {"new-1": 20, "new-2": 20}


def test_the_table_as_it_will_be() -> None:
    table = pd.DataFrame({
        "partition": ["a", "b"], "bucket": [3, 5], "rows": [10, 20], "labelled": [9, 20], "open": [1, 0],
        "last_upload": [1, 2], "last_labelled": [1, 2],
    })  # fmt: skip
    counts = counts_with_buckets(pd.Series({"a": 5, "z": 7}), table)
    assert counts.to_dict("list") == {"partition": ["a", "z"], "bucket": [3, 1], "rows": [5, 7]}
    after = table_after(table, counts, 4).set_index("partition")
    assert after.loc["a"].to_dict() == {
        "bucket": 3, "rows": 15, "labelled": 14, "open": 1, "last_upload": 4, "last_labelled": 4,
    }  # fmt: skip
    assert after.loc["b"].to_dict() == table.set_index("partition").loc["b"].to_dict()
    assert (after.loc["z", "labelled"], after.loc["z", "last_upload"]) == (7, 4)
