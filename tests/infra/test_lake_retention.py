"""Old versions of tables, removed for good: what later versions need stays, whenever the work was cut off."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from infra.lake.files import LakeFiles, stored_files
from infra.lake.location import Location
from infra.lake.predictions import LakePredictions
from infra.lake.retention import History
from infra.lake.table import UseCaseTable
from tasks.domain.errors import NotFound, Tampered
from tasks.domain.names import Purpose
from tasks.domain.run import Batch
from tests.infra.test_lake import a_run, sales, scored
from tests.ingestion.lake import make_upload
from tests.samples import sales_use_case

VERSIONS = 7


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def table(location: Location, tmp_path: Path) -> UseCaseTable:
    """Seven versions: uploads that replace one another's rows."""
    table = UseCaseTable(location.child("tables", "sales"), sales_use_case(), tmp_path)
    for seq in range(1, VERSIONS + 1):
        merge(table, seq)
    return table


def merge(table: UseCaseTable, seq: int) -> tuple[int, int, int]:
    staging = table.stage(make_upload(seq))
    staging.append(sales(stores=2, price=float(seq)))
    return staging.merge()


def paths(table: UseCaseTable) -> set[str]:
    return {file.path for file in stored_files(table.location)}


def again(table: UseCaseTable, tmp_path: Path) -> UseCaseTable:
    """As another process sees it, which remembers nothing."""
    return UseCaseTable(table.location, table.use_case, tmp_path)


def assert_forgotten(table: UseCaseTable, tmp_path: Path, before: int) -> None:
    """Later versions are as they were, earlier ones are gone, and work goes on."""
    seen = again(table, tmp_path)
    assert seen.oldest() == before
    for version in range(before, VERSIONS):
        assert set(seen.read(version, 0)["price"]) == {version + 1.0}
        assert len(seen.read(version, 0)) == 40
    for version in range(before):
        with pytest.raises(NotFound, match=f"dataset version {version} of 'sales' is not kept any more") as caught:
            again(table, tmp_path).partitions(version)
        assert f"{before} or later" in str(caught.value)
    data = {path for path in paths(table) if not path.startswith("_delta_log/")}
    assert len(data) == VERSIONS - before
    assert merge(seen, VERSIONS) == (VERSIONS - 1, 40, 0), "an upload that was merged is found"
    assert seen.merged_in(make_upload(1).upload_id) == 0, "also one whose version is gone"
    assert seen.forget(before, dry_run=False) == [("dataset versions", 0, 0), ("dataset files", 0, 0)]
    assert merge(seen, VERSIONS + 1) == (VERSIONS, 40, 0)


def test_old_versions_go_and_later_ones_stay(table: UseCaseTable, tmp_path: Path) -> None:
    everything = paths(table)
    would = table.forget(4, dry_run=True)
    assert paths(table) == everything
    assert table.forget(4, dry_run=False) == would
    assert [(each.what, each.number) for each in would] == [("dataset versions", 4), ("dataset files", 4)]
    assert all(each.size_bytes > 1000 for each in would)
    assert_forgotten(table, tmp_path, 4)


def test_all_but_the_current_version_can_go(table: UseCaseTable, tmp_path: Path) -> None:
    table.forget(VERSIONS - 1, dry_run=False)
    assert_forgotten(table, tmp_path, VERSIONS - 1)
    assert again(table, tmp_path).forget(VERSIONS, dry_run=False)[0].number == 1
    assert again(table, tmp_path).oldest() == VERSIONS


def test_nothing_goes_before_the_first_version(table: UseCaseTable) -> None:
    everything = paths(table)
    assert table.forget(0, dry_run=False) == [("dataset versions", 0, 0), ("dataset files", 0, 0)]
    assert paths(table) == everything


CUT_OFF = {
    "after the checkpoint": [],
    "in the middle of the log": ["_delta_log/00000000000000000001.json"],
    "at the beginning of the log": ["_delta_log/00000000000000000000.json", "_delta_log/00000000000000000003.json"],
    "after the log": [f"_delta_log/{version:020}.json" for version in range(4)],
}


@pytest.mark.parametrize("gone", CUT_OFF.values(), ids=CUT_OFF)
@pytest.mark.slow
def test_what_was_cut_off_goes_on(table: UseCaseTable, tmp_path: Path, gone: list[str]) -> None:
    """The states that a killed process can leave: files of the log are removed in no particular order."""
    snapshot = table.snapshot(4)
    assert snapshot is not None
    snapshot.delta.create_checkpoint()
    for path in gone:
        LakeFiles(table.location).delete(path)
    seen = again(table, tmp_path)
    assert seen.oldest() == (4 if gone else 0)
    assert set(seen.read(4, 0)["price"]) == {5.0}
    seen.forget(4, dry_run=False)
    assert_forgotten(table, tmp_path, 4)


def test_the_version_of_a_moment(location: Location, tmp_path: Path) -> None:
    table = UseCaseTable(location.child("t"), sales_use_case(), tmp_path)
    assert table.version_at(now()) is None
    assert table.oldest() is None
    before = now()
    moments = []
    for seq in range(1, 4):
        merge(table, seq)
        moments.append(now())
    assert table.version_at(before) == 0, "all are younger: the oldest one is kept"
    assert [table.version_at(moment) for moment in moments] == [0, 1, 2]
    table.forget(1, dry_run=False)
    assert [table.version_at(moment) for moment in (before, *moments)] == [1, 1, 1, 2]


def test_what_a_killed_merge_left_goes_too(table: UseCaseTable, tmp_path: Path) -> None:
    left_over = f"_bucket=0/{make_upload(9).upload_id}-00000000-00000.parquet"
    LakeFiles(table.location).write(left_over, b"half")
    assert ("dataset files", 1, 4) in table.forget(0, dry_run=True)
    table.forget(0, dry_run=False)
    assert left_over not in paths(table)
    assert_forgotten_nothing(table, tmp_path)


def test_a_table_that_lacks_a_file_is_left_alone(table: UseCaseTable) -> None:
    """Whatever made its log and its files differ: what the log does not name must not be taken for left over."""
    snapshot = table.snapshot()
    assert snapshot is not None
    LakeFiles(table.location).delete(snapshot.files[0].path)
    before = paths(table)
    with pytest.raises(Tampered, match="lacks files"):
        table.forget(4, dry_run=False)
    assert paths(table) == before


def assert_forgotten_nothing(table: UseCaseTable, tmp_path: Path) -> None:
    seen = again(table, tmp_path)
    assert [len(seen.read(version, 0)) for version in range(VERSIONS)] == [40] * VERSIONS


def test_superseded_predictions_go_and_what_may_still_be_published_stays(location: Location) -> None:
    table = LakePredictions(location.child("predictions", "sales"), sales_use_case())
    first, other = make_upload(1, Purpose.SCORING), make_upload(2, Purpose.SCORING)

    def score(run_id: int, upload_id: str, keys: list[str]) -> pa.Table:
        run = a_run(run_id, upload_id)
        batch = Batch(run_id=run_id, number=1, bucket=0, partitions=("store=1",))
        table.write(run, batch, scored(keys))
        return run

    table.publish(score(1, first.upload_id, ["a"]), first)
    table.publish(score(2, other.upload_id, ["z"]), other)
    early = now()
    table.publish(score(3, first.upload_id, ["a"]), first)
    late = now()
    score(4, first.upload_id, ["a"])  # was cut off, and will be taken up
    score(5, first.upload_id, ["a"])  # was cut off, and will not

    def runs() -> set[int]:
        files = stored_files(table.location)
        return {int(file.path.split("run-")[1].split("-")[0]) for file in files if "run-" in file.path}

    visible = table.read()
    assert table.forget(early, {4}, dry_run=True)[1].number == 1, "a replaced run is kept until it is old"
    table.forget(early, {4, 5}, dry_run=False)
    assert runs() == {1, 2, 3, 4, 5}
    assert [each.number for each in table.forget(late, {4}, dry_run=False)][1] == 2
    assert runs() == {2, 3, 4}
    assert table.read().equals(visible)
    table.publish(a_run(3, first.upload_id), first)  # is known to be published
    assert table.read().equals(visible)
    table.publish(a_run(4, first.upload_id), first)
    assert set(table.read()["run_id"].to_pylist()) == {2, 4}
    empty = LakePredictions(location.child("predictions", "none"), sales_use_case())
    assert empty.forget(late, set(), dry_run=False) == []


def test_files_are_listed_with_size_and_time(location: Location) -> None:
    files = LakeFiles(location)
    before = now() - dt.timedelta(seconds=2)  # S3 knows whole seconds
    files.write("a/b/one.txt", b"123")
    files.write("a/two.txt", b"12")
    found = files.stored("a")
    assert [(file.path, file.size_bytes) for file in found] == [("b/one.txt", 3), ("two.txt", 2)]
    assert all(before <= file.modified <= now() for file in found)
    assert files.stored("nothing/here") == []
    assert History(location.child("nothing")).oldest is None
