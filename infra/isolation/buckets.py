"""Buckets: a silo's own is made, closed and removed here; shared ones are only told what to refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from infra.isolation.aws import REGION, Identity, code_of, said, tag_set
from infra.isolation.policies import Document, canonical, merged
from infra.lake.location import Location
from tasks.domain.errors import InvalidDefinition

CLOSED = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
MAX_NAME = 63


def ensure_bucket(s3: Any, identity: Identity, bucket: str, region: str | None) -> list[str]:
    """Makes a bucket that nothing public can reach. Raises `InvalidDefinition` when its name is someone else's."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    if len(bucket) > MAX_NAME:
        raise InvalidDefinition(
            "the bucket of a silo would have too long a name",
            expected=f"at most {MAX_NAME} characters",
            found=bucket,
            hint="set ORCHARD_SILO_URL to something shorter",
        )
    changed = []
    try:
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=identity.account)
    except ClientError as error:
        if code_of(error) not in ("404", "NoSuchBucket"):
            raise InvalidDefinition(
                "the bucket of a silo is not this account's, or closed to this login",
                where=bucket,
                found=str(error),
                hint="set ORCHARD_SILO_URL to a name that nobody else has",
            ) from error
        where = {} if region in (None, REGION) else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=bucket, **where)
        changed.append(f"bucket {bucket}: made")
    if _answer(s3.get_public_access_block, bucket, "PublicAccessBlockConfiguration") != CLOSED:
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=CLOSED)
    return changed


def ensure_tags(s3: Any, bucket: str, tags: Mapping[str, str]) -> list[str]:
    """Tags a bucket; tags of others stay."""
    present = {each["Key"]: each["Value"] for each in _answer(s3.get_bucket_tagging, bucket, "TagSet") or ()}
    if tags.items() <= present.items():
        return []
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tag_set({**present, **tags})})
    return [f"bucket {bucket}: {said(tags)}"]


def ensure_encryption(s3: Any, bucket: str, kms_key: str) -> list[str]:
    """Makes the key encrypt whatever comes without a word about it."""
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": kms_key}
    present = _answer(s3.get_bucket_encryption, bucket, "ServerSideEncryptionConfiguration") or {"Rules": [{}]}
    if present["Rules"][0].get("ApplyServerSideEncryptionByDefault") == default:
        return []
    rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    return [f"bucket {bucket}: encrypted by {kms_key}"]


def ensure_statements(s3: Any, bucket: str, policy: Document) -> list[str]:
    """Puts our statements into the bucket's policy; those of others, told by their `Sid`, stay."""
    present = json.loads(_answer(s3.get_bucket_policy, bucket, "Policy") or '{"Statement": []}')
    ours = {each["Sid"] for each in policy["Statement"]}
    others = [each for each in present["Statement"] if each.get("Sid") not in ours]
    wanted = merged(policy, {"Statement": others})
    if canonical(present["Statement"]) == canonical(wanted["Statement"]):
        return []
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(wanted))
    return [f"bucket {bucket}: what it refuses"]


def remove_bucket(s3: Any, bucket: str) -> list[str]:
    """Removes a bucket and all that is in it; nothing happens where there is none."""
    from botocore.exceptions import ClientError

    try:
        empty(s3, Location(f"s3://{bucket}"))
        s3.delete_bucket(Bucket=bucket)
    except ClientError as error:
        if code_of(error) not in ("404", "NoSuchBucket"):
            raise
        return []
    return [f"bucket {bucket}: removed"]


def empty(s3: Any, location: Location) -> int:
    """Removes all below a folder that a listing of files does not show: old versions, marks of deletion, unfinished
    uploads; and the files. Returns how many. One by one, so that what is refused is heard of."""
    prefix, removed = f"{location.prefix}/" if location.prefix else "", 0
    for key, version in list(_versions(s3, location.bucket, prefix)):
        s3.delete_object(Bucket=location.bucket, Key=key, VersionId=version)
        removed += 1
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=location.bucket, Prefix=prefix):
        for each in page.get("Uploads", []):
            s3.abort_multipart_upload(Bucket=location.bucket, Key=each["Key"], UploadId=each["UploadId"])
            removed += 1
    return removed


def _versions(s3: Any, bucket: str | None, prefix: str) -> Iterator[tuple[str, str]]:
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for each in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            yield each["Key"], each.get("VersionId", "null")


def _answer(get: Any, bucket: str, name: str) -> Any:
    """What a bucket has of that kind; None where it has none."""
    from botocore.exceptions import ClientError

    try:
        return get(Bucket=bucket)[name]
    except ClientError as error:
        if not code_of(error).startswith(("NoSuch", "ServerSideEncryptionConfigurationNotFound")):
            raise
        if code_of(error) == "NoSuchBucket":
            raise
        return None
