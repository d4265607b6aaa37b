"""Files, tables and predictions: one contract suite, on a local folder and on S3."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from infra.lake.files import LakeFiles
from infra.lake.keys import bucket_of, buckets_for
from infra.lake.location import Location
from infra.lake.predictions import LakePredictions
from infra.lake.table import UseCaseTable
from infra.lake.writing import SMALL_FILES
from tasks.domain.errors import NotFound, Permanent
from tasks.domain.names import Purpose, Stage
from tasks.domain.run import Batch, Run, RunStatus
from tests.ingestion.lake import make_upload
from tests.samples import sales_use_case

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def sales(stores: int = 3, days: int = 20, price: float = 1.0) -> pd.DataFrame:
    """Rows of (store, day), `_line` counting from 2."""
    frame = pd.DataFrame(
        {
            "store": np.repeat(np.arange(1, stores + 1), days),
            "sku": 1,
            "day": np.tile(pd.date_range("2026-01-01", periods=days).as_unit("s"), stores),
            "price": price,
            "promo": True,
            "color": pd.Series([None] * (stores * days), dtype="str"),
        }
    )
    return frame.assign(sales=np.arange(len(frame), dtype=float), _line=np.arange(2, len(frame) + 2))


def test_files(location: Location, tmp_path: Path) -> None:
    files = pickle.loads(pickle.dumps(LakeFiles(location)))
    source = tmp_path / "source"
    source.write_bytes(b"put")
    files.write("a/b/one.txt", b"1")
    files.put("a/two.txt", source)
    files.write("a/b/one.txt", b"again")
    assert files.read("a/b/one.txt") == b"again"
    assert files.list("a") == ["a/b/one.txt", "a/two.txt"]
    assert files.exists("a/two.txt")
    with files.local("a/two.txt") as path:
        assert path.read_bytes() == b"put"
    files.delete("a/b")
    files.delete("nothing/here")
    assert files.list("a") == ["a/two.txt"]
    assert files.url("a/two.txt").startswith(location.url)
    with pytest.raises(NotFound, match="a/b/one"):
        files.read("a/b/one.txt")
    with pytest.raises(NotFound), files.local("gone"):
        pass


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", "a\\b", "a\0b", "", ".", "a/./b"])
def test_paths_stay_inside(tmp_path: Path, path: str) -> None:
    files = LakeFiles(Location(tmp_path.as_uri()))
    for act in (files.read, files.exists, files.list, files.delete, files.url, lambda p: files.write(p, b"")):
        with pytest.raises(Permanent, match="not a path inside"):
            act(path)


def test_links_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path / "secret", tmp_path / "root" / "link")
    with pytest.raises(Permanent, match="leaves the tenant's folder"):
        LakeFiles(Location((tmp_path / "root").as_uri())).write("link/x", b"")


def test_secrets_stay_out_of_texts() -> None:
    assert "hidden" not in repr(Location("s3://b", key="k", secret="hidden", token="hidden"))


def test_a_table_from_upload_to_upload(location: Location, tmp_path: Path) -> None:
    table = pickle.loads(pickle.dumps(UseCaseTable(location.child("tables", "sales"), sales_use_case(), tmp_path)))
    assert table.version() is None
    staging = table.stage(make_upload(1))
    staging.append(sales())
    assert staging.merge() == staging.merge() == (0, 60, 0)
    scoring = table.stage(make_upload(2, Purpose.SCORING))
    new = sales(stores=4, price=9.0).query("store >= 3").drop(columns="sales")
    scoring.append(new)
    assert scoring.merge() == (1, 40, 0)
    partitions = table.partitions(1)
    assert partitions["partition"].tolist() == [f"store={store},sku=1" for store in (1, 2, 3, 4)]
    assert partitions["rows"].tolist() == [20] * 4
    assert partitions["labelled"].tolist() == [20, 20, 20, 0]
    assert partitions["open"].tolist() == [0, 0, 0, 20]
    assert partitions["last_upload"].tolist() == [1, 1, 2, 2]
    assert partitions["last_labelled"].tolist() == [1, 1, 1, 0]
    assert table.partitions(1, upload_seq=2)["partition"].tolist() == ["store=3,sku=1", "store=4,sku=1"]
    assert len(table.read(1, 0)) == 80
    assert len(table.read(0, 0)) == 60
    assert len(table.read(1, 0, ["store=1,sku=1", "store=4,sku=1"], labelled=True)) == 20
    third = table.read(1, 0, ["store=3,sku=1"], upload_seq=2)
    assert set(third["price"]) == {9.0}  # features are the new ones, the known target stays
    assert third["sales"].sum() == sales().query("store == 3")["sales"].sum()
    assert {"_bucket", "_partition", "_upload", "_labelled"} <= set(third)
    actuals = table.stage(make_upload(3, Purpose.ACTUALS))
    actuals.append(sales(stores=5).query("store >= 4").drop(columns=["price", "promo", "color"]).assign(sales=5.0))
    assert sum(map(len, actuals.unmatched())) == 20
    assert actuals.merge() == (2, 20, 0)
    fourth = table.read(2, 0, ["store=4,sku=1"])
    assert set(fourth["sales"]) == {5.0}
    assert set(fourth["_upload"]) == {2}
    assert set(fourth["_labelled"]) == {3}


def test_a_contract_that_grew(tmp_path: Path) -> None:
    location, scratch = Location((tmp_path / "t").as_uri()), tmp_path / "scratch"
    old = UseCaseTable(location, sales_use_case(), scratch).stage(make_upload(1))
    old.append(sales(stores=1))
    old.merge()
    contract = sales_use_case().contract.model_dump()
    contract["columns"]["wind"] = {"type": "number", "nullable": True}
    table = UseCaseTable(location, sales_use_case(contract=contract), scratch)
    new = table.stage(make_upload(2))
    new.append(sales(stores=2).query("store == 2").assign(wind=3.5))
    merged = new.merge()
    rows = table.read(merged.version, 0)
    assert rows.groupby("store")["wind"].sum().to_dict() == {1: 0.0, 2: 70.0}
    assert table.stage(make_upload(2)).merge() == merged


def test_daily_uploads_do_not_pile_up_files(tmp_path: Path) -> None:
    table = UseCaseTable(Location((tmp_path / "t").as_uri()), sales_use_case(), tmp_path / "scratch")
    everything = sales(stores=1, days=SMALL_FILES + 5)
    for seq in range(1, len(everything) + 1):
        staging = table.stage(make_upload(seq))
        staging.append(everything.iloc[[seq - 1]])
        version = staging.merge().version
    snapshot = table.snapshot()
    assert snapshot is not None
    assert len(snapshot.files) <= SMALL_FILES + 1
    assert table.read(version, 0)["sales"].sum() == everything["sales"].sum()


def test_buckets_are_stable_and_grow_by_halves() -> None:
    assert [bucket_of("store=12,sku=7", n) for n in (1, 16, 256)] == [0, 3, 179]
    assert [buckets_for(rows) for rows in (1, 250_000, 250_001, 4_000_000, 10**9)] == [1, 1, 2, 16, 256]


def a_run(run_id: int, upload_id: str | None) -> Run:
    return Run(
        run_id=run_id,
        key=str(run_id),
        use_case="sales",
        stage=Stage.SCORING,
        status=RunStatus.RUNNING,
        upload_id=upload_id,
        started_at=NOW,
    )


def scored(keys: list[str]) -> pa.Table:
    count = len(keys)
    return pa.table(
        {
            "partition": ["store=1"] * count,
            "row_key": keys,
            "prediction": pa.array([None] * count, pa.float64()),
            "label": ["1"] * count,
            "probabilities": [[0.25, 0.75]] * count,
            "baseline": [[0.5, 0.5]] * count,
            "answer": ["own"] * count,
            "fallback": [False] * count,
            "model_run": pa.array([3] * count, pa.int64()),
        }
    )


def test_predictions_appear_together_and_replace_those_of_the_same_upload(location: Location) -> None:
    table = pickle.loads(pickle.dumps(LakePredictions(location.child("predictions", "sales"), sales_use_case())))
    first, other = make_upload(1, Purpose.SCORING), make_upload(2, Purpose.SCORING)

    def score(run_id: int, upload: object, batches: list[list[str]]) -> Run:
        run = a_run(run_id, getattr(upload, "upload_id", None))
        for number, keys in enumerate(batches):
            batch = Batch(run_id=run_id, number=number, bucket=0, partitions=("store=1",))
            table.write(run, batch, scored(["stale"]))
            table.write(run, batch, scored(keys))
        return run

    def visible() -> list[tuple[int, str]]:
        rows = table.read()
        return sorted(zip(rows["run_id"].to_pylist(), rows["row_key"].to_pylist(), strict=True))

    run = score(1, first, [["a", "b"], ["c"]])
    assert visible() == []
    table.publish(run, first)
    table.publish(run, first)
    assert visible() == [(1, "a"), (1, "b"), (1, "c")]
    assert table.read()["probabilities"][0].as_py() == [0.25, 0.75]
    table.publish(score(2, other, [["z"]]), other)
    again = score(3, first, [["a", "b", "c"]])
    assert visible() == [(1, "a"), (1, "b"), (1, "c"), (2, "z")]
    table.publish(again, first)
    table.publish(run, first)  # an old run does not come back
    assert visible() == [(2, "z"), (3, "a"), (3, "b"), (3, "c")]
    assert len(table.read(["store=1"])) == 4
    assert len(table.read(["store=2"])) == 0
    assert len(table.read(["store=2"])) == 0


FULL = """
import resource, sys
from pathlib import Path
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.lake.table import UseCaseTable
from tests.infra.test_lake import make_upload, sales, sales_use_case
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
root = Path(sys.argv[1])
try:
    if sys.argv[2] == "files":
        LakeFiles(Location(root.as_uri())).write("a", b"x" * 10_000)
    else:
        table = UseCaseTable(Location((root / "t").as_uri()), sales_use_case(), root / "scratch")
        staging = table.stage(make_upload(1))
        staging.append(sales(stores=30))
        staging.merge()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("what", ["files", "table"])
def test_a_full_disk_is_called_a_full_disk(tmp_path: Path, what: str) -> None:
    """A file size limit stands in for a full disk, in a process of its own: it cannot be raised again."""
    command = [sys.executable, "-c", FULL, str(tmp_path), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith("StorageUnavailable disk full"), done.stderr
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2_000
