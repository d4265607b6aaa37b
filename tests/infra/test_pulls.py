"""Where the next pull begins, whatever became of those before it."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest

from infra.database.pulls import Pulled, PullProgress
from infra.database.records import PostgresRecords
from tasks.domain.names import Purpose
from tasks.domain.run import UploadStatus
from tests.conftest import MakeRecords

NUMBERS = itertools.count()
"""Of tenants: each test has one that never pulled."""


@pytest.fixture
def records(make_records: MakeRecords) -> PostgresRecords:
    return make_records(f"puller-{next(NUMBERS)}")


def pull(records: PostgresRecords, upload: str, to: object, start: object = 0) -> None:
    """A pull as the flow does it."""
    before = records.pull_progress("sales")
    since = start if before.watermark is None else before.watermark
    _, new = records.add_upload("sales", Purpose.HISTORY, upload, "a.parquet", 10, upload)
    if not new:
        records.update_upload(upload, status=UploadStatus.RECEIVED)
    records.save_pull("sales", before, Pulled(upload, since), to)


def ended(records: PostgresRecords, **statuses: UploadStatus) -> None:
    for upload, status in statuses.items():
        records.update_upload(upload, status=status)


@pytest.mark.parametrize(
    "value",
    [7, "b", dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, 5, 0, 0, 1, tzinfo=dt.UTC)],
    ids=lambda value: type(value).__name__,
)
def test_a_watermark_comes_back_as_it_was(records: PostgresRecords, value: object) -> None:
    assert records.pull_progress("sales") == PullProgress()
    pull(records, "first", value, start=value)
    assert records.pull_progress("sales") == PullProgress(value, (Pulled("first", value),))


def test_pulls_go_on_from_the_first_that_was_rejected(records: PostgresRecords) -> None:
    pull(records, "first", 10)
    pull(records, "second", 20)
    pull(records, "third", 30)
    assert records.pull_progress("sales").watermark == 30
    ended(records, first=UploadStatus.INGESTED, second=UploadStatus.REJECTED, third=UploadStatus.DONE)
    assert records.pull_progress("sales") == PullProgress(10)
    pull(records, "fourth", 40)
    assert records.pull_progress("sales") == PullProgress(40, (Pulled("fourth", 10),))
    ended(records, fourth=UploadStatus.DONE)
    assert records.pull_progress("sales") == PullProgress(40)


def test_the_same_rows_may_be_rejected_again(records: PostgresRecords) -> None:
    pull(records, "first", 10)
    ended(records, first=UploadStatus.DONE)
    for _ in range(2):
        pull(records, "second", 20)
        assert records.pull_progress("sales") == PullProgress(20, (Pulled("second", 10),))
        ended(records, second=UploadStatus.REJECTED)
        assert records.pull_progress("sales") == PullProgress(10)


def test_what_was_pulled_earlier_and_waits_is_not_forgotten(records: PostgresRecords) -> None:
    pull(records, "first", 10)
    pull(records, "second", 20)
    ended(records, second=UploadStatus.REJECTED)
    pull(records, "third", 30)
    ended(records, third=UploadStatus.DONE, first=UploadStatus.REJECTED)
    assert records.pull_progress("sales") == PullProgress(0)
