"""What the policy documents decide, computed from their text, where moto's server knows no conditions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.isolation.analysis import Decision, Request, beyond, decide, list_request, object_request, permitted
from infra.isolation.aws import Identity
from infra.isolation.policies import (
    Document,
    canonical,
    key_policy,
    operator_policy,
    shared_bucket_policy,
    silo_bucket_policy,
    tenant_policy,
    trust_policy,
)
from infra.places import Places, places, role_of
from infra.settings import Settings, load_settings
from tasks.domain.errors import InvalidDefinition
from tasks.domain.tenant import Isolation

IDENTITY = Identity("123456789012", "aws", "arn:aws:iam::123456789012:role/operator")
ROLE = IDENTITY.role("orchard-tenant-acme")
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
TENANTS = st.from_regex(r"[a-z0-9]{1,6}(-[a-z0-9]{1,4})?", fullmatch=True)
OBJECT_ACTIONS = ["GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        home=tmp_path_factory.mktemp("home"),
        lake_url="s3://lake",
        training_artifacts_url="s3://lake/artifacts/training",
        production_artifacts_url="s3://models",
        inbox_url="s3://drop/inbox",
    )


def opened(settings: Settings, tenant: str, isolation: Isolation = Isolation.POOL) -> tuple[Places, Document]:
    found = places(settings, tenant, isolation)
    return found, tenant_policy(IDENTITY, [found], [])


@given(
    TENANTS, TENANTS, st.sampled_from(OBJECT_ACTIONS), st.text(st.characters(categories=["L", "N", "P"]), max_size=9)
)
def test_a_role_opens_its_own_folders_and_no_others(
    settings: Settings, mine: str, other: str, action: str, name: str
) -> None:
    """Whatever the tenants are called: one name may be the beginning of the other."""
    own, policy = opened(settings, mine)
    theirs = places(settings, other, Isolation.POOL)
    for folder in own.all():
        assert permitted(object_request(action, folder.bucket or "", f"{folder.prefix}/{name}"), [policy])
        assert permitted(list_request(folder.bucket or "", f"{folder.prefix}/{name}"), [policy])
    for folder in theirs.all() if other != mine else ():
        assert not permitted(object_request(action, folder.bucket or "", f"{folder.prefix}/{name}"), [policy])
        assert not permitted(list_request(folder.bucket or "", f"{folder.prefix}/{name}"), [policy])


@pytest.mark.parametrize(
    "prefix", [None, "", "tenants", "tenants/", "tenants/acme", "tenants/acme-foods/", "TENANTS/ACME/"]
)
def test_nothing_but_the_folder_is_listed(settings: Settings, prefix: str | None) -> None:
    _, policy = opened(settings, "acme")
    assert not permitted(list_request("lake", prefix), [policy])
    assert permitted(list_request("lake", "tenants/acme/"), [policy])
    for action in (
        "s3:ListBucketVersions",
        "s3:ListBucketMultipartUploads",
        "s3:ListAllMyBuckets",
        "s3:GetBucketPolicy",
    ):
        assert not permitted(Request(action, "arn:aws:s3:::lake", {"s3:prefix": "tenants/acme/"}), [policy])


def test_reading_a_neighbours_object_is_denied_where_it_is_copied_from(settings: Settings) -> None:
    """A copy needs the source's `GetObject`, which moto's server does not ask for."""
    _, policy = opened(settings, "acme")
    assert permitted(object_request("PutObject", "lake", "tenants/acme/x"), [policy])
    assert not permitted(object_request("GetObject", "lake", "tenants/globex/x"), [policy])


def test_a_shared_bucket_refuses_plain_transport_and_other_keys(settings: Settings) -> None:
    own = [opened(settings, "acme")[1]]
    for key in (None, KEY):
        bucket = [shared_bucket_policy(IDENTITY, "lake", key)]

        def put(bucket: list[Document] = bucket, **context: str) -> bool:
            return permitted(object_request("PutObject", "lake", "tenants/acme/x", **context), own, bucket)

        sse, sse_key = "s3__x_amz_server_side_encryption", "s3__x_amz_server_side_encryption_aws_kms_key_id"
        assert put()
        assert put(aws__SecureTransport="true", s3__TlsVersion="1.2")
        assert not put(aws__SecureTransport="false")
        assert not put(s3__TlsVersion="1.1")
        assert put(**{sse: "AES256"}) is (key is None)
        assert put(**{sse: "aws:kms", sse_key: KEY}) is (key is not None)
        assert not put(**{sse: "aws:kms", sse_key: KEY + "2"})
        assert not put(**{sse: "aws:kms"})
        assert not put(s3__x_amz_server_side_encryption_customer_algorithm="AES256")


def test_a_silo_refuses_everyone_else(settings: Settings) -> None:
    silo, policy = opened(settings, "acme", Isolation.SILO)
    bucket = silo_bucket_policy(IDENTITY, silo.lake.bucket or "", KEY, [ROLE, IDENTITY.principal])
    everything: Document = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}

    def read(who: str, identity: Document) -> bool:
        request = object_request("GetObject", silo.lake.bucket or "", f"{silo.lake.prefix}/x", aws__PrincipalArn=who)
        return permitted(request, [identity], [bucket])

    assert read(ROLE, policy)
    assert read(IDENTITY.principal, everything)
    assert not read(IDENTITY.role("orchard-tenant-globex"), everything)
    assert not read("arn:aws:iam::123456789012:root", everything)
    assert not permitted(object_request("GetObject", silo.lake.bucket or "", "elsewhere"), [policy])


def test_roles_are_assumed_by_the_operator_alone(settings: Settings) -> None:
    trust = trust_policy(IDENTITY.principal)
    for who, expected in ((IDENTITY.principal, Decision.ALLOWED), (ROLE, Decision.SILENT), ("*", Decision.SILENT)):
        assert decide(trust, Request("sts:AssumeRole", "*", {"aws:PrincipalArn": who})) is expected
    key = key_policy(IDENTITY, ROLE)
    by_s3 = {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}
    decrypt = Request("kms:Decrypt", KEY, {"aws:PrincipalArn": ROLE, **by_s3})
    assert decide(key, decrypt) is Decision.ALLOWED
    assert decide(key, Request("kms:Decrypt", KEY, {"aws:PrincipalArn": ROLE})) is Decision.SILENT
    assert (
        decide(key, Request("kms:Decrypt", KEY, {"aws:PrincipalArn": IDENTITY.principal, **by_s3})) is Decision.SILENT
    )
    assert decide(tenant_policy(IDENTITY, [opened(settings, "acme")[0]], [KEY]), decrypt) is Decision.ALLOWED


def test_the_operator_reads_no_shared_file_without_a_role(settings: Settings) -> None:
    operator = operator_policy(settings, IDENTITY)
    assert permitted(Request("sts:AssumeRole", ROLE), [operator])
    assert not permitted(Request("sts:AssumeRole", IDENTITY.role("admin")), [operator])
    assert not permitted(object_request("GetObject", "lake", "tenants/acme/x"), [operator])
    assert permitted(object_request("GetObject", "drop", "inbox/acme/x"), [operator])
    assert not permitted(object_request("GetObject", "drop", "elsewhere"), [operator])


@pytest.mark.parametrize("bucket", ["lake", "models", "lake-silo-acme", "drop"])
def test_the_operator_can_erase_what_it_cannot_read(settings: Settings, bucket: str) -> None:
    operator = operator_policy(settings, IDENTITY)
    where = f"arn:aws:s3:::{bucket}"
    for action in ("ListBucket", "ListBucketVersions", "ListBucketMultipartUploads"):
        assert permitted(Request(f"s3:{action}", where, {"s3:prefix": "inbox/acme/"}), [operator])
    for action in ("DeleteObject", "DeleteObjectVersion", "AbortMultipartUpload"):
        assert permitted(Request(f"s3:{action}", f"{where}/inbox/acme/x"), [operator])
    assert permitted(Request("s3:GetObject", f"{where}/inbox/acme/x"), [operator]) is (bucket == "drop")


def widened(policy: Document, number: int, **changes: Any) -> Document:
    statements = [dict(each) for each in policy["Statement"]]
    statements[number] = statements[number] | changes
    return {**policy, "Statement": statements}


def test_what_is_wider_than_the_folders_is_found(settings: Settings) -> None:
    own, policy = opened(settings, "acme")
    assert beyond(policy, own.all()) == []
    assert beyond(tenant_policy(IDENTITY, [own], [KEY]), own.all()) == []
    wider = [
        widened(policy, 0, Condition={}),
        widened(policy, 0, Condition={"StringLike": {"s3:prefix": "tenants/acme*"}}),
        widened(policy, 0, Condition={"StringLike": {"s3:prefix": ["tenants/acme/*", "tenants/*"]}}),
        widened(policy, 0, Condition={"StringNotLike": {"s3:prefix": "tenants/globex/*"}}),
        widened(policy, 0, Action=["s3:ListBucket", "s3:GetBucketPolicy"]),
        widened(policy, 1, Action="s3:*"),
        widened(policy, 1, Resource="arn:aws:s3:::lake/tenants/acme*"),
        widened(policy, 1, Resource="arn:aws:s3:::lake/tenants/*"),
        widened(policy, 1, Resource=["arn:aws:s3:::lake/tenants/acme/*", "*"]),
        tenant_policy(IDENTITY, [own], ["arn:aws:kms:us-east-1:123456789012:key/*"]),
        tenant_policy(IDENTITY, [own, places(settings, "globex", Isolation.POOL)], []),
    ]
    for number, document in enumerate(wider):
        assert beyond(document, own.all()), number


def test_the_evaluator_does_not_guess() -> None:
    statement = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}
    for part in (
        {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}},
        {"Resource": "arn:aws:s3:::lake/${aws:username}/*"},
        {"NotAction": "s3:GetObject"},
    ):
        with pytest.raises(InvalidDefinition, match="not understand"):
            decide({"Statement": statement | part}, object_request("GetObject", "lake", "x", aws__SourceIp="10.1.1.1"))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"StringEquals": {"S3:Prefix": "a"}}, True),
        ({"StringEquals": {"s3:prefix": ["b", "a"]}}, True),
        ({"StringEquals": {"s3:prefix": "b"}}, False),
        ({"StringNotEquals": {"s3:prefix": ["b", "a"]}}, False),
        ({"StringLike": {"s3:prefix": "?"}}, True),
        ({"StringLike": {"s3:prefix": "[a]"}}, False),
        ({"StringEquals": {"s3:delimiter": "/"}}, False),
        ({"StringNotEquals": {"s3:delimiter": "/"}}, True),
        ({"StringEqualsIfExists": {"s3:delimiter": "/"}}, True),
        ({"Null": {"s3:delimiter": "true", "s3:prefix": "false"}}, True),
        ({"Null": {"s3:prefix": "true"}}, False),
        ({"StringLike": {"s3:prefix": "a"}, "Bool": {"aws:SecureTransport": "true"}}, False),
    ],
)
def test_conditions_by_the_rules_of_aws(condition: dict[str, Any], expected: bool) -> None:
    document = {"Statement": {"Effect": "Allow", "Action": "s3:ListB*", "Resource": "*", "Condition": condition}}
    assert permitted(list_request("lake", "a"), [document]) is expected


@pytest.mark.parametrize("url", ["s3://lake/*", "s3://lake/${aws:username}", "s3://lake/a?b", "s3://lake/a*b/c"])
def test_an_address_that_a_policy_would_read_as_a_pattern_is_refused(settings: Settings, url: str) -> None:
    with pytest.raises(InvalidDefinition, match=r"pattern|cannot live"):
        opened(settings.model_copy(update={"production_artifacts_url": url}), "acme")


def test_documents_compare_as_stores_keep_them() -> None:
    assert canonical({"a": ["x"], "b": ["2", "1"]}) == canonical({"b": ["1", "2"], "a": "x"})
    assert canonical({"a": ["x", "y"]}) != canonical({"a": "x"})


def test_nobody_is_given_actions_by_pattern(settings: Settings) -> None:
    own, _ = opened(settings, "acme")
    tenant, trust = tenant_policy(IDENTITY, [own], [KEY]), trust_policy(IDENTITY.principal)
    for document in (tenant, trust, key_policy(IDENTITY, ROLE), operator_policy(settings, IDENTITY)):
        for statement in document["Statement"]:
            assert statement["Effect"] == "Allow"
            assert "*" not in json.dumps(statement["Action"])
    assert len(role_of(settings, "x" * 40)) <= 64  # IAM's limit
