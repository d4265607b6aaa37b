"""Local folders: nothing leads out of a tenant's, by path, by link, or by what a table says of itself."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.lake.paths import names_in, own_data_file
from infra.lake.predictions import LakePredictions
from infra.lake.table import UseCaseTable
from infra.places import places
from infra.settings import load_settings
from tasks.domain.errors import OrchardError, Permanent, Tampered
from tasks.domain.names import Purpose
from tasks.domain.run import Batch
from tasks.domain.tenant import Isolation
from tests.infra.test_lake import a_run, make_upload, sales, sales_use_case, scored

ODD = st.text(st.one_of(st.characters(), st.sampled_from("./\\\0\n．／＼‥․∕")), max_size=30)


@pytest.fixture
def lake(tmp_path: Path) -> Location:
    """The place of one tenant beside that of another, below a lake that is itself reached through a link."""
    (tmp_path / "real/globex/b").mkdir(parents=True)
    (tmp_path / "real/globex/b/secret").write_bytes(b"of globex")
    os.symlink(tmp_path / "real", tmp_path / "lake")
    return Location((tmp_path / "lake").as_uri()).child("acme")


def everything(files: LakeFiles, source: Path, path: str) -> list[Callable[[], Any]]:
    """All that can be done to a path."""

    def opened() -> None:
        with files.local(path):
            pass

    return [
        lambda: files.read(path),
        lambda: files.write(path, b"acme was here"),
        lambda: files.put(path, source),
        lambda: files.exists(path),
        lambda: files.stamp(path),
        lambda: files.move(path, "kept/x"),
        lambda: files.move("own", path),
        opened,
    ]


@pytest.mark.parametrize("link", ["a", "a/b", "a/b/secret"])
def test_a_link_anywhere_on_the_way_is_refused(lake: Location, tmp_path: Path, link: str) -> None:
    files, root, other = LakeFiles(lake), tmp_path / "real/acme", tmp_path / "real/globex"
    files.write("own", b"1")
    target = other / link.removeprefix("a").lstrip("/")
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, root / link)
    acts = everything(files, other / "b/secret", "a/b/secret")
    followed = acts if link != "a/b/secret" else [acts[0], acts[3], acts[4], acts[-1]]  # the others replace the link
    for act in followed:
        with pytest.raises(Permanent, match="link"):
            act()
    if link == "a":
        with pytest.raises(Permanent, match="link"):
            files.list("a")
    else:
        assert files.list("a") == [link]  # the link itself, and nothing behind it
    files.delete("a")  # takes the link away, and nothing behind it
    assert not (root / "a").exists()
    assert (other / "b/secret").read_bytes() == b"of globex"
    assert sorted(path.name for path in other.rglob("*")) == ["b", "secret"]


def exchange(one: Path, other: Path) -> None:
    """Swaps two names in one step, as Linux can."""
    at, both = -100, 2
    assert ctypes.CDLL(None).renameat2(at, bytes(one), at, bytes(other), both) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_a_link_that_is_planted_meanwhile_leads_nowhere(lake: Location, tmp_path: Path) -> None:
    """A folder and a link to the other tenant's take turns under its name, while files are written to it."""
    files, root, other = LakeFiles(lake), tmp_path / "real/acme", tmp_path / "real/globex"
    files.write("a/b/first", b"1")
    os.symlink(other, root / "trap")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            exchange(root / "a", root / "trap")

    swapping = threading.Thread(target=swap)
    swapping.start()
    done = refused = 0
    try:
        for number in range(800):
            try:
                files.write(f"a/b/{number % 20}", b"acme")
                done += 1
                files.delete("a/b/secret")
                assert files.read(f"a/b/{number % 20}") == b"acme"
            except OrchardError:
                refused += 1
    finally:
        over.set()
        swapping.join()
    assert done
    assert refused
    assert (other / "b/secret").read_bytes() == b"of globex"
    assert [path.name for path in (other / "b").iterdir()] == ["secret"]


@settings(max_examples=1_000, deadline=None)
@given(ODD)
@example("a/．．/b")
@example("a／b")
@example("a\u2028b")
@example("\ud800")
@example("x" * 201)
@example("/".join(["x" * 100] * 10))
@example("a/\x1b[31m")
def test_a_path_is_refused_or_inside(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    try:
        names = names_in(path)
    except Permanent:
        return
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        seen = unicodedata.normalize(form, path)  # type: ignore[arg-type]
        assert len(seen.split("/")) == len(names)
        assert not {"", ".", ".."} & set(seen.split("/"))
        assert "\\" not in seen
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    place = Location(root.as_uri()).child("acme")
    files = LakeFiles(place)
    try:
        files.write(path, b"1")
        assert files.read(path) == b"1"
        assert path in files.list(names[0])
        files.delete(path)
    except OrchardError:
        pass
    assert [each.name for each in root.iterdir()] == ["acme"]


@pytest.mark.parametrize("isolation", [Isolation.POOL, Isolation.SILO])
def test_a_tenants_root_is_no_link(tmp_path: Path, isolation: Isolation) -> None:
    mine, theirs = (places(load_settings(home=tmp_path), name, isolation) for name in ("acme", "globex"))
    for place, other in zip(mine.all(), theirs.all(), strict=True):
        LakeFiles(other).write("x", b"of globex")
        assert place.local is not None
        assert other.local is not None
        root = place.local if isolation is Isolation.POOL else tmp_path / "silos/acme"
        root.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(other.local if isolation is Isolation.POOL else tmp_path / "silos/globex", root)
        with pytest.raises(Permanent, match="link"):
            LakeFiles(place).read("x")
        root.unlink()


def test_tenants_folders_are_open_to_nobody_else(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        place = places(load_settings(home=tmp_path), "acme", Isolation.POOL).lake
        LakeFiles(place).write("a/b/x", b"1")
        merged(place.child("tables", "sales"), tmp_path / "scratch")
    finally:
        os.umask(before)
    root = place.local
    assert root is not None
    folders = ("", "a", "a/b", "tables", "tables/sales", "tables/sales/_bucket=0")
    for path in (root / name for name in folders):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    assert stat.S_IMODE((root / "a/b/x").stat().st_mode) == 0o600


def merged(location: Location, scratch: Path) -> UseCaseTable:
    table = UseCaseTable(location, sales_use_case(), scratch)
    staging = table.stage(make_upload(1))
    staging.append(sales())
    staging.merge()
    return UseCaseTable(location, sales_use_case(), scratch)


@pytest.mark.parametrize("what", ["table", "log", "commit", "bucket", "file"])
def test_a_table_is_not_read_through_a_link(tmp_path: Path, what: str) -> None:
    """The other tenant's table is the same to the byte: only the link tells."""
    lake = Location((tmp_path / "lake").as_uri())
    mine, theirs = lake.child("acme", "tables", "sales"), lake.child("globex", "tables", "sales")
    merged(theirs, tmp_path / "scratch")
    table, root, other = merged(mine, tmp_path / "scratch"), mine.local, theirs.local
    assert root is not None
    assert other is not None
    inside = {"table": "", "log": "_delta_log", "commit": "_delta_log/00000000000000000000.json", "bucket": "_bucket=0"}
    [file] = [path.relative_to(other) for path in (other / "_bucket=0").iterdir()]
    if what == "file":  # of whose name there is one in the log
        [own] = (root / "_bucket=0").iterdir()
        own.unlink()
        os.symlink(other / file, own)
    else:
        place = root / inside[what] if inside[what] else root
        os.rename(place, tmp_path / "aside")
        os.symlink(other / inside[what], place)
    acts: list[Callable[[], Any]] = [lambda: table.read(0, 0), lambda: table.partitions(0)]
    if what in ("table", "log", "commit"):
        acts.append(table.version)
    if what == "bucket":
        staging = table.stage(make_upload(2))
        staging.append(sales(price=2.0))
        acts.append(staging.merge)
    for act in acts:
        with pytest.raises(Permanent, match="link"):
            act()
    assert [path.relative_to(other) for path in (other / "_bucket=0").iterdir()] == [file]


def test_predictions_stay_inside(tmp_path: Path) -> None:
    place = Location((tmp_path / "lake").as_uri()).child("acme", "predictions", "sales")
    predictions, upload = LakePredictions(place, sales_use_case()), make_upload(1, Purpose.SCORING)
    run, batch = a_run(1, upload.upload_id), Batch(run_id=1, number=0, bucket=0, partitions=("store=1",))
    predictions.write(run, batch, scored(["a"]))
    predictions.publish(run, upload)
    assert len(predictions.read()) == 1
    root, elsewhere = place.local, tmp_path / "elsewhere"
    assert root is not None
    os.rename(root / f"upload_id={upload.upload_id}", elsewhere)
    os.symlink(elsewhere, root / f"upload_id={upload.upload_id}")
    kept = sorted(path.name for path in elsewhere.iterdir())
    again = Batch(run_id=1, number=1, bucket=0, partitions=("store=1",))
    for act in (predictions.read, lambda: predictions.write(run, again, scored(["b"]))):
        with pytest.raises(Permanent, match="link"):
            act()
    assert sorted(path.name for path in elsewhere.iterdir()) == kept


@pytest.mark.parametrize("path", ["../../../globex/tables/sales/{file}", "file://{other}/{file}", "{other}/{file}"])
def test_a_log_that_names_files_of_others_is_refused(tmp_path: Path, path: str) -> None:
    lake = Location((tmp_path / "lake").as_uri())
    mine, theirs = lake.child("acme", "tables", "sales"), lake.child("globex", "tables", "sales")
    merged(theirs, tmp_path / "scratch")
    merged(mine, tmp_path / "scratch")
    root, other = mine.local, theirs.local
    assert root is not None
    assert other is not None
    [file] = [each.relative_to(other) for each in (other / "_bucket=0").iterdir()]
    first = root / "_delta_log/00000000000000000000.json"
    [added] = [line for line in map(json.loads, first.read_text().splitlines()) if "add" in line]
    added["add"]["path"] = path.format(file=file, other=other)
    (root / "_delta_log/00000000000000000001.json").write_text(json.dumps(added) + "\n")
    table = UseCaseTable(mine, sales_use_case(), tmp_path / "scratch")
    with pytest.raises(OrchardError) as caught:
        table.read(1, 0)
    assert isinstance(caught.value, Tampered)
    assert len(UseCaseTable(mine, sales_use_case(), tmp_path / "scratch").read(0, 0)) == 60


@pytest.mark.parametrize(
    "path",
    ["x.parquet", "../x=1/y.parquet", "a=b/../y.parquet", "a=../y.parquet", "/a=b/y.parquet", "s3://b/a=b/y.parquet",
     "a=b/.y.parquet", "a=b/y.parquet/z", "a=b/y.json", "a=b\\y.parquet", "a=b/y%2F..parquet\0", "a=b/%2e%2e.parquet"],
)  # fmt: skip
def test_names_of_data_files(path: str) -> None:
    with pytest.raises(Tampered):
        own_data_file(path)
    assert own_data_file("_bucket=3/52c28441-00000.parquet") == "_bucket=3/52c28441-00000.parquet"


@pytest.mark.parametrize("url", ["file:///lake?x", "s3://lake/a#b", "s3://lake/a?versionId=1", "http://lake", "lake"])
def test_addresses_that_are_no_place(url: str) -> None:
    with pytest.raises(OrchardError, match="cannot live"):
        Location(url)
