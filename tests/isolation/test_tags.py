"""Tags of what is a tenant's on S3: of objects, whoever wrote them, and of its role, bucket and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.isolation.roles import provide
from infra.lake.files import LakeFiles
from infra.lake.table import UseCaseTable
from infra.lake.transfer import copy_files
from infra.places import Places, places, places_of
from infra.registry.artifacts import Artifacts
from infra.settings import Settings, StorageOptions
from tasks.domain.tenant import Isolation, Tenant, Tier
from tests.infra.test_lake import make_upload, sales, sales_use_case
from tests.isolation.store import Store, isolated

TENANT = {"orchard-tenant": "acme", "orchard-tier": "standard"}
BOTH = [Isolation.POOL, Isolation.SILO]


@pytest.fixture
def settings(store: Store, tmp_path: Path) -> Settings:
    return store.settings(tmp_path, f"tagged-{abs(hash(tmp_path)) % 10**9}")


def opened(settings: Settings, tenant: Tenant) -> Places:
    provide(settings, tenant)
    return places_of(settings, tenant)


def named(tags: list[dict[str, str]]) -> dict[str, str]:
    return {each.get("Key", each.get("TagKey", "")): each.get("Value", each.get("TagValue", "")) for each in tags}


def tags_below(store: Store, place: Any) -> dict[str, dict[str, str]]:
    """The tags of every object below a place, by path."""
    s3, found = store.client("s3"), {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=f"{place.prefix}/"):
        for each in page.get("Contents", []):
            tags = s3.get_object_tagging(Bucket=place.bucket, Key=each["Key"])["TagSet"]
            found[each["Key"].removeprefix(f"{place.prefix}/")] = named(tags)
    return found


@pytest.mark.parametrize("isolation", BOTH)
def test_objects_say_whose_they_are_whatever_wrote_them(
    store: Store, settings: Settings, tmp_path: Path, isolation: Isolation
) -> None:
    own = opened(settings, isolated("acme", isolation))
    files, big = LakeFiles(own.lake), tmp_path / "big"
    big.write_bytes(bytes(101 * 2**20))  # sent in parts
    files.put("uploads/sales/big", big)
    files.write("quarantine/sales/1.parquet", b"1")
    files.write("uploads/sales/.partial", b"1")
    files.move("uploads/sales/.partial", "reports/sales/1/index.html")
    files.write("readme", b"of no use case")
    table = UseCaseTable(own.lake.child("tables", "sales"), sales_use_case(), tmp_path / "scratch")
    staging = table.stage(make_upload(1))
    staging.append(sales())
    staging.merge()
    artifacts = Artifacts(own.production_artifacts)
    with artifacts.building(own.production_artifacts.child("sales", "1").url) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "MLmodel").write_text("x")

    found = tags_below(store, own.lake)
    log = {path for path in found if "/_delta_log/" in path}
    assert log, "deltalake writes it, and cannot tag"
    assert {path for path, tags in found.items() if not tags} == log
    assert found.pop("readme") == TENANT
    sold = TENANT | {"orchard-use-case": "sales"}
    assert {"uploads/sales/big", "quarantine/sales/1.parquet", "reports/sales/1/index.html"} < found.keys()
    assert any(path.endswith(".parquet") and path.startswith("tables/") for path in found)
    assert [path for path, tags in found.items() if path not in log and tags != sold] == []
    assert tags_below(store, own.production_artifacts) == {"sales/1/model/MLmodel": sold}


def test_what_is_written_after_a_change_of_tier_has_the_new_one(store: Store, settings: Settings) -> None:
    tenant = isolated("acme", Isolation.POOL)
    LakeFiles(opened(settings, tenant).lake).write("uploads/sales/1", b"1")
    promoted = tenant.model_copy(update={"tier": Tier.PREMIUM})
    place = opened(settings, promoted).lake
    LakeFiles(place).write("uploads/sales/2", b"2")
    tiers = {path: tags["orchard-tier"] for path, tags in tags_below(store, place).items()}
    assert tiers == {"uploads/sales/1": "standard", "uploads/sales/2": "premium"}


def test_files_that_move_to_a_silo_are_tagged_there(store: Store, settings: Settings) -> None:
    tenant = isolated("roamer", Isolation.POOL)
    provide(settings, tenant, Isolation.POOL, Isolation.SILO)
    pool, silo = (places(settings, "roamer", isolation, tenant.tier).lake for isolation in BOTH)
    LakeFiles(pool).write("uploads/sales/1", b"1")
    copy_files(pool, silo)
    assert tags_below(store, silo) == tags_below(store, pool) != {}


def test_role_bucket_and_key_are_tagged_and_follow_the_tier(store: Store, settings: Settings) -> None:
    tenant = isolated("acme", Isolation.SILO)
    place = opened(settings, tenant).lake
    s3, iam, kms = store.client("s3"), store.client("iam"), store.client("kms")
    of_mine = [{"Key": "team", "Value": "data"}, {"Key": "orchard-tenant", "Value": "acme"}]
    s3.put_bucket_tagging(Bucket=place.bucket, Tagging={"TagSet": of_mine})
    promoted = tenant.model_copy(update={"tier": Tier.PREMIUM})
    changed = provide(settings, promoted)
    assert len(changed) == 3
    assert all("tagged" in line for line in changed), changed
    assert provide(settings, promoted) == []
    wanted = {"orchard-tenant": "acme", "orchard-tier": "premium"}
    assert named(s3.get_bucket_tagging(Bucket=place.bucket)["TagSet"]) == wanted | {"team": "data"}
    assert named(iam.get_role(RoleName=place.role)["Role"]["Tags"]) == wanted
    key = kms.describe_key(KeyId=f"alias/{place.role}")["KeyMetadata"]["KeyId"]
    assert named(kms.list_resource_tags(KeyId=key)["Tags"]) == wanted


def test_a_store_without_tags_is_asked_for_none(store: Store, settings: Settings) -> None:
    untagged = settings.model_copy(update={"storage": StorageOptions(tags=False)})
    place = opened(untagged, isolated("plain", Isolation.SILO)).lake
    LakeFiles(place).write("uploads/sales/1", b"1")
    assert tags_below(store, place) == {"uploads/sales/1": {}}
    assert "Tags" not in store.client("iam").get_role(RoleName=place.role)["Role"]
