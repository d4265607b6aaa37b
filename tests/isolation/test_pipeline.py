"""The whole story on S3, with nothing but each tenant's role: in a prefix, and in a silo."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.cli.actor import witness
from deployments.platform import running_platform, stop_platform
from infra.database.cluster import connected_cluster
from infra.database.operator import Operator
from infra.isolation.analysis import beyond, permitted
from infra.isolation.policies import Document
from infra.isolation.roles import policy_of
from infra.lake.files import LakeFiles
from infra.places import Places, places
from infra.registry import initialise_registry
from infra.settings import Settings, load_settings
from infra.space import open_space
from tasks.domain.tenant import Isolation
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal
from tests.isolation.recorder import asked
from tests.isolation.store import REGION, Store, running_store
from tests.ports import own_port

pytestmark = pytest.mark.slow

YEARS = timedelta(days=1000)

TRAINING = {"min_rows": 20, "lightgbm": {"num_iterations": 5}, "tenant_wide": {"lightgbm": {"num_iterations": 5}}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path]]:
    record = tmp_path_factory.mktemp("store") / "asked.jsonl"
    with running_store(record=record) as running:
        yield running, record


@pytest.fixture(scope="module")
def settings(recorded: tuple[Store, Path]) -> Iterator[Settings]:
    """Settings of a home whose lake and artifacts are on S3, in the environment, where flows read them."""
    store, _ = recorded
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="orchard-s3-") as folder:
        for name in [name for name in os.environ if name.startswith(("ORCHARD_", "PREFECT_", "AWS_"))]:
            del os.environ[name]
        store.client("s3").create_bucket(Bucket="orchard-lake")
        os.environ.update(
            ORCHARD_HOME=f"{folder}/home",
            ORCHARD_PREFECT_PORT=str(own_port(5200)),
            ORCHARD_WORKERS="2",
            ORCHARD_LAKE_URL="s3://orchard-lake",
            ORCHARD_TRAINING_ARTIFACTS_URL="s3://orchard-lake/artifacts/training",
            ORCHARD_PRODUCTION_ARTIFACTS_URL="s3://orchard-lake/artifacts/production",
            ORCHARD_LAKE_OPTIONS__KEY=store.key,
            ORCHARD_LAKE_OPTIONS__SECRET=store.secret,
            ORCHARD_LAKE_OPTIONS__ENDPOINT_URL=store.url,
            ORCHARD_LAKE_OPTIONS__REGION=REGION,
        )
        try:
            yield load_settings()
        finally:
            os.environ.clear()
            os.environ.update(before)
            _tell_prefect()


@pytest.fixture(scope="module")
def orchard(settings: Settings) -> Iterator[Terminal]:
    try:
        with running_platform(settings, prefect=True, keep=True) as platform:
            for uri in platform.registry_uris():
                initialise_registry(uri)
            _tell_prefect()
            with Terminal() as terminal:
                yield terminal
    finally:
        stop_platform(settings)


def _tell_prefect() -> None:
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("isolation", [Isolation.POOL, Isolation.SILO])
def test_a_pipeline_needs_nothing_but_the_role(
    orchard: Terminal, settings: Settings, recorded: tuple[Store, Path], tmp_path: Path, isolation: Isolation
) -> None:
    from flows.retention import enforce

    store, record = recorded
    tenant = f"cloud-{isolation}"
    file = tenant_file(tmp_path, tenant, estimators=["lightgbm"], training=TRAINING)
    file.write_text(file.read_text() + f"isolation: {isolation}\n")
    orchard("tenants", "add", file).worked()
    before = len([*asked(record)])
    files = ("history", history(25)), ("scoring", scoring()), ("history", history(3, first="2026-04-01"))
    for purpose, text in files:
        (tmp_path / "rows.csv").write_text(text)
        [upload] = orchard("upload", tenant, "sales", purpose, tmp_path / "rows.csv", "--json").worked().json
        assert upload["status"] == "done"
    assert len(orchard("results", tenant, "sales", "--json").worked().json) == 18
    orchard("releases", "rollback", tenant, "sales").worked()
    assert LakeFiles(open_space(settings, tenant).location).list("uploads")
    old = enforce(settings, witness(connected_cluster(settings)), tenant=tenant, now=datetime.now(UTC) + YEARS)
    assert {each.what for each in old[0].removed} >= {"raw files", "reports", "dataset versions"}, old
    assert len(orchard("results", tenant, "sales", "--json").worked().json) == 18
    mine = [*asked(record)][before:]
    assert untagged(store, settings, tenant, isolation) == []

    by_operator = {each.service for each in mine if each.key == store.key}
    assert by_operator <= {"sts"}, "the platform's own login opens no file"
    requests = [request for each in mine if each.key != store.key for request in each.requests]
    assert {each.action for each in requests} >= {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"}
    policy = policy_of(settings, Operator(connected_cluster(settings)).tenant(tenant))
    assert [each for each in requests if not permitted(each, [policy])] == [], "moto ignores conditions, AWS does not"
    assert LakeFiles(open_space(settings, tenant).location).list("uploads") == []


@pytest.mark.timeout(240)
def test_a_tenant_moves_between_buckets(
    orchard: Terminal, settings: Settings, recorded: tuple[Store, Path], tmp_path: Path
) -> None:
    store, _ = recorded
    file = tenant_file(tmp_path, "roamer", estimators=["lightgbm"], training=TRAINING)
    orchard("tenants", "add", file).worked()
    for purpose, text in (("history", history(25)), ("scoring", scoring())):
        (tmp_path / "rows.csv").write_text(text)
        orchard("upload", "roamer", "sales", purpose, tmp_path / "rows.csv").worked()
    before = orchard("results", "roamer", "sales", "--json").worked().json
    pool, silo = (places(settings, "roamer", isolation) for isolation in (Isolation.POOL, Isolation.SILO))
    s3 = store.client("s3")
    orchard("tenants", "move", "roamer", "--to", "silo").worked()
    assert orchard("results", "roamer", "sales", "--json").worked().json == before
    for place in pool.all():
        assert s3.list_objects_v2(Bucket=place.bucket, Prefix=f"{place.prefix}/")["KeyCount"] == 0
    assert beyond(role_policy(store, pool), silo.all()) == []
    orchard("run", "roamer", "sales").worked()
    orchard("tenants", "move", "roamer", "--to", "pool").worked()
    assert orchard("results", "roamer", "sales", "--json").worked().json
    assert silo.lake.bucket not in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    assert beyond(role_policy(store, pool), pool.all()) == []


def untagged(store: Store, settings: Settings, tenant: str, isolation: Isolation) -> list[str]:
    """The tenant's objects that do not say whose they are, those aside that only deltalake writes."""
    s3, found = store.client("s3"), list[str]()
    for place in places(settings, tenant, isolation).all():
        keys = [each["Key"] for each in s3.list_objects_v2(Bucket=place.bucket, Prefix=f"{place.prefix}/")["Contents"]]
        assert any("sales/" in key for key in keys)
        for key in keys:
            tags = s3.get_object_tagging(Bucket=place.bucket, Key=key)["TagSet"]
            if "/_delta_log/" not in key and {each["Key"]: each["Value"] for each in tags} != {
                "orchard-tenant": tenant, "orchard-tier": "standard", "orchard-use-case": "sales"
            }:  # fmt: skip
                found.append(key)
    return found


def role_policy(store: Store, places: Places) -> Document:
    """What the tenant's role may do at the moment."""
    found = store.client("iam").get_role_policy(RoleName=places.lake.role, PolicyName="folders")
    document: Document = found["PolicyDocument"]
    return document


@pytest.mark.timeout(240)
@pytest.mark.parametrize("isolation", [Isolation.POOL, Isolation.SILO])
def test_an_erased_tenant_leaves_no_object_no_role_and_no_key(
    orchard: Terminal, settings: Settings, recorded: tuple[Store, Path], tmp_path: Path, isolation: Isolation
) -> None:
    """In a bucket that keeps old versions; another tenant has a use case of its name."""
    store, _ = recorded
    s3, iam, kms, tenant = store.client("s3"), store.client("iam"), store.client("kms"), f"leaver-{isolation}"
    s3.put_bucket_versioning(Bucket="orchard-lake", VersioningConfiguration={"Status": "Enabled"})
    for name, use_case in ((tenant, "sales"), ("neighbour", tenant)):
        file = tenant_file(tmp_path, name, id=use_case, estimators=["lightgbm"], training=TRAINING)
        file.write_text(file.read_text() + f"isolation: {isolation if name == tenant else 'pool'}\n")
        orchard("tenants", "add", file, "--yes").worked()
        (tmp_path / "rows.csv").write_text(history(25))
        orchard("upload", name, use_case, "history", tmp_path / "rows.csv").worked()
    LakeFiles(open_space(settings, tenant).location).write("uploads/sales/again", b"1")
    LakeFiles(open_space(settings, tenant).location).write("uploads/sales/again", b"2")
    neighbours = versions(store, "orchard-lake", "neighbour")
    orchard("tenants", "export", tenant, "--to", tmp_path / "out").worked()
    assert list((tmp_path / "out" / "models" / "releases").rglob("MLmodel"))

    certificate = orchard("tenants", "erase", tenant, "--yes", "--json").worked().json["certificate"]
    assert versions(store, "orchard-lake", tenant) == []
    assert versions(store, "orchard-lake", "neighbour") == neighbours
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"] if tenant in bucket["Name"]] == []
    assert [role["RoleName"] for role in iam.list_roles()["Roles"] if tenant in role["RoleName"]] == []
    assert [alias for alias in kms.list_aliases()["Aliases"] if tenant in alias["AliasName"]] == []
    removed = {step["step"]: step["found"] for step in certificate["removed"]}
    assert removed["files"]["files"] > 20
    assert removed["storage rights"] == {"roles": 1} | ({"buckets": 1} if isolation is Isolation.SILO else {})
    keys = [rest for rest in certificate["remains"] if "KMS" in rest["what"]]
    assert len(keys) == (isolation is Isolation.SILO)


def versions(store: Store, bucket: str, tenant: str) -> list[tuple[str, str]]:
    """Objects of a tenant's folders, old versions and marks of deleted ones too."""
    pages = store.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket)
    found = [each for page in pages for kind in ("Versions", "DeleteMarkers") for each in page.get(kind, [])]
    roots = (f"tenants/{tenant}/", f"artifacts/training/{tenant}/", f"artifacts/production/{tenant}/")
    return sorted((each["Key"], each["VersionId"]) for each in found if each["Key"].startswith(roots))
