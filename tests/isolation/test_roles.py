"""Roles on a real S3 endpoint that authorizes every call: each tenant's own, and nothing else, whatever is asked."""

from __future__ import annotations

import json
import pickle
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake

from infra.isolation import credentials, policies
from infra.isolation.credentials import LAST_S, RENEW_S
from infra.isolation.roles import policy_of, policy_of_operator, provide, remove
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.lake.table import UseCaseTable
from infra.places import Places, places
from infra.settings import Settings
from tasks.domain.errors import InvalidDefinition, StorageUnavailable
from tasks.domain.tenant import Isolation
from tests.infra.test_lake import make_upload, sales, sales_use_case
from tests.isolation.store import Store, isolated, provided

BOTH = [Isolation.POOL, Isolation.SILO]


@pytest.fixture
def settings(store: Store, tmp_path: Path) -> Settings:
    return store.settings(tmp_path, f"lake-{abs(hash(tmp_path)) % 10**9}")


@pytest.fixture(params=BOTH)
def neighbours(request: pytest.FixtureRequest, settings: Settings) -> tuple[Places, Places]:
    """Two tenants; the other one has files of all kinds."""
    mine, others = (provided(settings, name, request.param) for name in ("acme", "globex"))
    for place in others.all():
        LakeFiles(place).write("a/file", b"of globex")
        write_deltalake(place.child("table").url, pa.table({"x": [1]}), storage_options=place.delta_options())
    return mine, others


def without_confinement(place: Location, theirs: Location) -> Location:
    """Their folder, opened with what opens mine: what a space would be whose own checks had all failed."""
    return Location(theirs.url, endpoint=place.endpoint, region=place.region, role=place.role, base=theirs.base)


def test_a_tenant_reaches_its_own_with_every_client(neighbours: tuple[Places, Places], tmp_path: Path) -> None:
    mine, _ = neighbours
    big = tmp_path / "big"
    big.write_bytes(bytes(12_000_000))
    for place in mine.all():
        files = pickle.loads(pickle.dumps(LakeFiles(place)))
        files.put("a/big", big)
        files.write("a/file", b"1")
        files.move("a/file", "b/file")
        assert files.list("b") == ["b/file"]
        assert files.read("b/file") == b"1"
        files.delete("a")
        assert not files.exists("a/big")
        write_deltalake(place.child("t").url, pa.table({"x": [1]}), storage_options=place.delta_options())
        assert DeltaTable(place.child("t").url, storage_options=place.delta_options()).version() == 0
        pq.write_table(pa.table({"x": [1]}), "x.parquet", filesystem=place.arrow())
        assert pq.read_table("x.parquet", filesystem=place.arrow()).num_rows == 1


def attempts_on(stolen: Location, source: Path) -> list[Callable[[], Any]]:
    """Everything that the platform's own clients can do to a folder."""
    files, arrow, options = LakeFiles(stolen), stolen.arrow(), stolen.delta_options()
    rows, table = pa.table({"x": [1]}), stolen.child("table").url
    return [
        lambda: files.read("a/file"),
        lambda: files.write("a/file", b"acme was here"),
        lambda: files.put("a/new", source),
        lambda: files.delete("a"),
        lambda: files.exists("a/file"),
        lambda: arrow.open_input_file("a/file").read(),
        lambda: pq.write_table(rows, "x.parquet", filesystem=arrow),
        lambda: arrow.delete_file("a/file"),
        lambda: DeltaTable(table, storage_options=options),
        lambda: write_deltalake(table, rows, storage_options=options),
    ]


def test_the_role_alone_denies_whatever_the_client(neighbours: tuple[Places, Places], tmp_path: Path) -> None:
    mine, others = neighbours
    source = tmp_path / "x"
    source.write_bytes(b"x")
    for place, theirs in zip(mine.all(), others.all(), strict=True):
        for number, attempt in enumerate(attempts_on(without_confinement(place, theirs), source)):
            with pytest.raises((StorageUnavailable, OSError)) as caught:
                attempt()
            assert re.search("denied|Denied|DENIED|Forbidden|privileges", str(caught.value)), number
        assert LakeFiles(theirs).read("a/file") == b"of globex"
        assert DeltaTable(theirs.child("table").url, storage_options=theirs.delta_options()).version() == 0


def test_the_role_alone_denies_every_kind_of_call(store: Store, neighbours: tuple[Places, Places]) -> None:
    mine, others = neighbours
    own, theirs = mine.lake, others.lake
    s3 = store.client("s3", own.credentials())
    own_key = {"Bucket": own.bucket, "Key": f"{own.prefix}/mine"}
    key = {"Bucket": theirs.bucket, "Key": f"{theirs.prefix}/a/file"}
    s3.put_object(**own_key, Body=b"1")
    as_globex = store.client("s3", theirs.credentials())
    upload = as_globex.create_multipart_upload(**key)["UploadId"]
    denied: list[Callable[[], Any]] = [
        lambda: s3.get_object(**key),
        lambda: s3.head_object(**key),
        lambda: s3.put_object(**key, Body=b"1"),
        lambda: s3.delete_object(**key),
        lambda: s3.copy_object(**key, CopySource=own_key),
        lambda: s3.create_multipart_upload(**key),
        lambda: s3.upload_part(**key, UploadId=upload, PartNumber=1, Body=b"1"),
        lambda: s3.list_parts(**key, UploadId=upload),
        lambda: s3.abort_multipart_upload(**key, UploadId=upload),
        lambda: s3.put_object_tagging(**key, Tagging={"TagSet": []}),
        lambda: s3.get_object_tagging(**key),
        lambda: s3.put_object_acl(**key, ACL="public-read"),
        lambda: s3.get_bucket_policy(Bucket=theirs.bucket),
        lambda: s3.put_bucket_policy(Bucket=own.bucket, Policy="{}"),
        lambda: s3.list_multipart_uploads(Bucket=theirs.bucket),
        lambda: s3.list_object_versions(Bucket=theirs.bucket),
        lambda: s3.create_bucket(Bucket="acme-was-here"),
        lambda: s3.delete_bucket(Bucket=own.bucket),
        lambda: s3.list_buckets(),
        lambda: store.client("sts", own.credentials()).assume_role(
            RoleArn=f"arn:aws:iam::123456789012:role/{theirs.role}", RoleSessionName="acme"
        ),
        lambda: store.client("iam", own.credentials()).put_role_policy(
            RoleName=own.role, PolicyName="more", PolicyDocument="{}"
        ),
    ]
    for number, attempt in enumerate(denied):
        with pytest.raises(ClientError, match=r"AccessDenied|403|Forbidden") as caught:
            attempt()
        assert "NoSuch" not in str(caught.value), number
    answer = s3.delete_objects(Bucket=theirs.bucket, Delete={"Objects": [{"Key": key["Key"]}]})
    assert [each["Code"] for each in answer["Errors"]] == ["AccessDenied"]
    assert as_globex.get_object(**key)["Body"].read() == b"of globex"


def test_a_place_carries_no_login(settings: Settings, store: Store) -> None:
    place = provided(settings, "acme").lake
    for text in (repr(place), pickle.dumps(place).decode("latin-1"), repr(place.credentials())):
        assert store.secret not in text
    assert store.key not in repr(place)
    current = place.credentials()
    assert current.key not in (None, store.key)
    assert current.secret not in repr(current)
    assert current.token not in repr(current)
    place.delta_options()
    assert current.secret.encode() not in pickle.dumps(LakeFiles(place))


def test_a_place_that_arrives_elsewhere_is_opened_by_the_settings_there(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(LakeFiles(provided(settings, "acme").lake))
    credentials.forget()  # as in another process
    for name, value in store.options().model_dump(exclude_none=True).items():
        shown = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        monkeypatch.setenv(f"ORCHARD_LAKE_OPTIONS__{name.upper()}", shown)
    monkeypatch.setenv("ORCHARD_HOME", str(settings.home))
    arrived = pickle.loads(sent)
    arrived.write("x", b"1")
    assert arrived.read("x") == b"1"


def test_credentials_are_renewed_in_time_and_every_handle_takes_the_new_ones(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = provided(settings, "acme").lake
    files = LakeFiles(place)
    files.write("x", b"1")
    kept = files._store._kept  # type: ignore[union-attr]
    first, handle = place.credentials(), kept.current()
    now = credentials.time()
    monkeypatch.setattr(credentials, "time", lambda: now + 3600 - RENEW_S - 5)
    assert place.credentials() == first
    assert kept.current() is handle
    monkeypatch.setattr(credentials, "time", lambda: now + 3600 - RENEW_S + 5)
    second = place.credentials()
    monkeypatch.setattr(credentials, "time", lambda: now)
    assert place.credentials() == second != first
    assert kept.current() is not handle
    assert place.delta_options()["AWS_SESSION_TOKEN"] == second.token
    files.write("x", b"2")
    assert files.read("x") == b"2"


def test_a_merge_that_outlasts_its_credentials_is_committed_with_new_ones(settings: Settings, tmp_path: Path) -> None:
    """An opened Delta table keeps the credentials that it was opened with."""
    place = provided(settings, "acme").lake.child("tables", "sales")
    table = UseCaseTable(place, sales_use_case(), tmp_path / "scratch")
    for number in (1, 2):
        staging = table.stage(make_upload(number))
        staging.append(sales(price=float(number)))
        if (base := staging._base) is not None:
            assert base.renewed() is base
            credentials._session(place.role or "", place.endpoint)._until = 0
            fresh = base.renewed()
            assert (fresh is base, fresh.version) == (False, base.version)
        assert staging.merge().version == number - 1


def test_while_no_new_credentials_can_be_had_the_old_ones_serve(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = provided(settings, "acme").lake
    first, now = place.credentials(), credentials.time()

    def away(*_: object) -> None:
        raise StorageUnavailable("STS is away")

    monkeypatch.setattr(credentials, "_assumed", away)
    monkeypatch.setattr(credentials, "time", lambda: now + 3600 - LAST_S - 5)
    assert place.credentials() == first
    monkeypatch.setattr(credentials, "time", lambda: now + 3600 - LAST_S + 5)
    with pytest.raises(StorageUnavailable, match="away"):
        place.credentials()


def test_threads_never_get_each_others_credentials(settings: Settings) -> None:
    """Six threads work for two tenants at once, while credentials are renewed again and again."""
    names = ("acme", "globex")
    mine = {name: provided(settings, name).lake for name in names}
    wrong: list[str] = []

    def work(name: str, number: int) -> None:
        for turn in range(8):
            if turn == number:
                credentials._session(mine[name].role or "", mine[name].endpoint)._until = 0
            files = files_of[name]
            files.write(f"{number}", name.encode())
            if files.read(f"{number}") != name.encode():
                wrong.append(f"{name} read something else")
        other = next(each for each in names if each != name)
        try:
            LakeFiles(without_confinement(mine[name], mine[other])).read(f"{number}")
            wrong.append(f"{name} read {other}'s")
        except StorageUnavailable:
            pass

    files_of = {name: LakeFiles(mine[name]) for name in names}
    threads = [threading.Thread(target=work, args=(names[number % 2], number)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert mine["acme"].credentials() != mine["globex"].credentials()


@pytest.mark.parametrize("isolation", BOTH)
def test_the_policy_that_is_shown_is_the_one_that_holds(settings: Settings, store: Store, isolation: Isolation) -> None:
    tenant = isolated("hooli", isolation)
    role = provided(settings, "hooli", isolation).lake.role
    held = store.client("iam").get_role_policy(RoleName=role, PolicyName="folders")["PolicyDocument"]
    assert policies.canonical(policy_of(settings, tenant)) == policies.canonical(held)
    assumed = policy_of_operator(settings)["Statement"][0]
    assert assumed["Resource"] == "arn:aws:iam::123456789012:role/orchard-tenant-*"


@pytest.mark.parametrize("isolation", BOTH)
def test_providing_twice_changes_nothing_and_removing_leaves_nothing(
    settings: Settings, store: Store, isolation: Isolation
) -> None:
    tenant = isolated("initech", isolation)
    assert provide(settings, tenant)
    assert provide(settings, tenant) == []
    lake = places(settings, "initech", isolation).lake
    LakeFiles(lake).write("x", b"1")
    store.client("s3", lake.credentials()).create_multipart_upload(Bucket=lake.bucket, Key=f"{lake.prefix}/half")
    held = lake.credentials()
    assert remove(settings, "initech", isolation)
    assert remove(settings, "initech", isolation) == []
    with pytest.raises(ClientError):
        store.client("s3", held).get_object(Bucket=lake.bucket, Key=f"{lake.prefix}/x")
    roles = [role["RoleName"] for role in store.client("iam").list_roles()["Roles"]]
    assert lake.role not in roles
    if isolation is Isolation.SILO:
        assert lake.bucket not in [bucket["Name"] for bucket in store.client("s3").list_buckets()["Buckets"]]
        assert f"alias/{lake.role}" not in [each["AliasName"] for each in store.client("kms").list_aliases()["Aliases"]]


def test_what_was_changed_by_hand_is_put_right(settings: Settings, store: Store) -> None:
    place = provided(settings, "acme").lake
    iam = store.client("iam")
    good = iam.get_role_policy(RoleName=place.role, PolicyName="folders")["PolicyDocument"]
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=place.role, PolicyName="folders", PolicyDocument=json.dumps(wide))
    assert provide(settings, isolated("acme", Isolation.POOL)) == [f"role {place.role}: what it may do"]
    assert iam.get_role_policy(RoleName=place.role, PolicyName="folders")["PolicyDocument"] == good


def test_a_silo_has_a_closed_bucket_and_a_key_of_its_own(settings: Settings, store: Store) -> None:
    silo = provided(settings, "acme", Isolation.SILO).lake
    s3, kms = store.client("s3"), store.client("kms")
    rule = s3.get_bucket_encryption(Bucket=silo.bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    key = rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    assert kms.describe_key(KeyId=f"alias/{silo.role}")["KeyMetadata"]["Arn"] == key
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    assert all(s3.get_public_access_block(Bucket=silo.bucket)["PublicAccessBlockConfiguration"].values())
    assert "Version" not in s3.get_bucket_versioning(Bucket=silo.bucket)


def test_without_roles_places_have_the_login_of_the_settings(store: Store, tmp_path: Path) -> None:
    settings = store.settings(tmp_path, "no-roles", storage={"roles": False})
    assert provide(settings, isolated("acme", Isolation.POOL)) == []
    place = places(settings, "acme", Isolation.POOL).lake
    assert (place.role, place.key, place.secret) == (None, store.key, store.secret)


def test_a_role_that_is_not_there_says_what_to_do(settings: Settings, store: Store) -> None:
    place = provided(settings, "acme").lake
    trust = policies.trust_policy("arn:aws:iam::123456789012:user/someone-else")
    store.client("iam").update_assume_role_policy(RoleName=place.role, PolicyDocument=json.dumps(trust))
    credentials.forget()
    places(settings, "acme", Isolation.POOL)
    with pytest.raises(StorageUnavailable, match=r"role/orchard-tenant-acme.*orchard tenants add"):
        LakeFiles(place).exists("x")


@pytest.mark.parametrize(
    "changes",
    [
        {"training_artifacts_url": "s3://here"},
        {"production_artifacts_url": "s3://here/lake/tenants"},
        {"training_artifacts_url": "s3://here/a", "production_artifacts_url": "s3://here/a/b"},
        {"silo_url": "s3://her", "lake_url": "s3://her-acme/lake", "training_artifacts_url": "s3://t"},
    ],
)
def test_places_within_one_another_are_refused(store: Store, tmp_path: Path, changes: dict[str, str]) -> None:
    settings = store.settings(tmp_path, "here").model_copy(update={"lake_url": "s3://here/lake"} | changes)
    with pytest.raises(InvalidDefinition, match="places of their own"):
        provide(settings, isolated("acme", Isolation.POOL))
