"""Folders and prefixes are removed with all their past; what lies beside them stays; what is left is listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.lake.files import LakeFiles
from infra.lake.handover import fetch_files
from infra.lake.location import Location
from infra.lake.removal import Size, paths_below, remove, size_of


@pytest.fixture(params=["file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A lake's root; on S3 a bucket that keeps old versions."""
    if request.param == "file":
        return Location((tmp_path / "lake").as_uri())
    endpoint = request.getfixturevalue("s3")
    bucket = f"removal-{abs(hash(tmp_path)) % 10**9}"
    client(endpoint).create_bucket(Bucket=bucket)
    client(endpoint).put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return Location(f"s3://{bucket}/prefix", key="key", secret="secret", endpoint=endpoint, region="us-east-1")


def client(endpoint: str) -> Any:
    login = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, **login)


def everything(location: Location) -> list[str]:
    return sorted(paths_below(location, lambda _: False))


def test_a_folder_goes_with_its_past_and_its_neighbours_stay(root: Location) -> None:
    acme, neighbour = root.child("tenants", "acme"), root.child("tenants", "acme-foods")
    for files in (LakeFiles(acme), LakeFiles(neighbour)):
        files.write("uploads/sales/a", b"one")
        files.write("uploads/sales/a", b"three")
        files.write("reports/b.html", b"12")
    before = everything(neighbour)
    if root.endpoint is not None:
        bucket = root.root.partition("/")[0]
        files.delete("reports")  # leaves a mark, and the old version
        client(root.endpoint).create_multipart_upload(Bucket=bucket, Key="prefix/tenants/acme/half")
        assert size_of(acme) == Size(3, 10)
        before = everything(neighbour)
    else:
        assert size_of(acme) == Size(2, 7)
    for _ in range(2):
        remove(acme)
        assert size_of(acme) == Size(0, 0)
        assert everything(acme) == []
    assert everything(neighbour) == before
    assert LakeFiles(neighbour).read("uploads/sales/a") == b"three"


def test_more_objects_go_than_one_request_takes(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.lake.removal.AT_ONCE", 10)  # a thousand objects take the test server too long
    bucket = f"many-{abs(hash(tmp_path)) % 10**9}"
    client(s3).create_bucket(Bucket=bucket)
    for number in range(25):
        client(s3).put_object(Bucket=bucket, Key=f"acme/{number}", Body=b"x")
    acme = Location(f"s3://{bucket}/acme", key="key", secret="secret", endpoint=s3, region="us-east-1")
    assert size_of(acme).files == 25
    remove(acme)
    assert size_of(acme).files == 0


def test_what_is_others_is_not_looked_through(root: Location) -> None:
    for tenant in ("acme", "other"):
        LakeFiles(root.child("tenants", tenant)).write("uploads/acme/file", b"x")
    LakeFiles(root).write("stray/acme.txt", b"x")
    found = set(paths_below(root, lambda inside: inside == "tenants/other"))
    assert {"tenants", "tenants/acme", "tenants/acme/uploads/acme/file", "stray/acme.txt"} <= found
    assert not [path for path in found if path.startswith("tenants/other")]


def test_a_place_that_never_was_is_empty(s3: str, tmp_path: Path) -> None:
    for place in (
        Location((tmp_path / "nowhere").as_uri()),
        Location("s3://no-such-bucket/x", key="key", secret="secret", endpoint=s3, region="us-east-1"),
    ):
        remove(place)
        assert size_of(place) == Size(0, 0)
        assert everything(place) == []


def test_a_link_is_removed_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("x")
    place = Location((tmp_path / "lake" / "acme").as_uri())
    LakeFiles(place).write("file", b"x")
    (tmp_path / "lake" / "acme" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "lake" / "whole").symlink_to(tmp_path / "elsewhere")
    remove(place)
    remove(Location((tmp_path / "lake" / "whole").as_uri()))
    assert list((tmp_path / "lake").iterdir()) == []
    assert (tmp_path / "elsewhere" / "kept").read_text() == "x"


def test_files_are_fetched_once_under_the_names_they_are_to_have(root: Location, tmp_path: Path) -> None:
    files, folder = LakeFiles(root.child("tenants", "acme")), tmp_path / "export"
    files.write("uploads/sales/0123", b"a,b")
    files.write("tables/sales/x.parquet", b"parquet")

    def name_of(path: str) -> str | None:
        return None if path.startswith("tables/") else f"as-{path}"

    for _ in range(2):
        assert fetch_files(files.location, name_of, folder) == (1, 3)
        assert [path.read_bytes() for path in folder.rglob("*") if path.is_file()] == [b"a,b"]
    target = folder / "as-uploads" / "sales" / "0123"
    target.write_bytes(b"x")  # an attempt that was cut off
    assert fetch_files(files.location, name_of, folder) == (1, 3)
    assert target.read_bytes() == b"a,b"
