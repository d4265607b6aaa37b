"""The KMS key of a silo, found by its alias."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from infra.isolation.aws import code_of, said
from infra.isolation.policies import Document, canonical

WAIT_DAYS = 7
"""Between a key's removal and its end; what it encrypted is unreadable from the start."""


def find_key(kms: Any, name: str) -> str | None:
    """ARN of the key behind an alias."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    try:
        key: str = kms.describe_key(KeyId=f"alias/{name}")["KeyMetadata"]["Arn"]
    except ClientError as error:
        if code_of(error) not in ("NotFoundException", "NotFound"):
            raise
        return None
    return key


def ensure_key(kms: Any, name: str, tenant: str, policy: Document, tags: Mapping[str, str]) -> tuple[str, list[str]]:
    """The ARN of the key behind the alias, made if there is none, rotated each year, tagged; and what changed."""
    key, changed = find_key(kms, name), []
    wanted = [{"TagKey": name, "TagValue": value} for name, value in tags.items()]
    if key is None:
        made = kms.create_key(
            Policy=json.dumps(policy),
            Description=f"files of Orchard's tenant {tenant}",
            Tags=wanted,
        )
        key = str(made["KeyMetadata"]["Arn"])
        kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key)
        changed.append(f"key alias/{name}: made")
        return _rotated(kms, key), changed
    if canonical(json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])) != canonical(policy):
        kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(policy))
        changed.append(f"key alias/{name}: who may use it")
    if any(each not in _tags(kms, key) for each in wanted):
        kms.tag_resource(KeyId=key, Tags=wanted)
        changed.append(f"key alias/{name}: {said(tags)}")
    return _rotated(kms, key), changed


def _rotated(kms: Any, key: str) -> str:
    if not kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]:
        kms.enable_key_rotation(KeyId=key)
    return key


def _tags(kms: Any, key: str) -> list[dict[str, str]]:
    return [
        {"TagKey": each["TagKey"], "TagValue": each["TagValue"]} for each in kms.list_resource_tags(KeyId=key)["Tags"]
    ]


def remove_key(kms: Any, name: str) -> list[str]:
    """Ends the key's use now and the key itself when `WAIT_DAYS` have passed."""
    key = find_key(kms, name)
    if key is None:
        return []
    kms.schedule_key_deletion(KeyId=key.rpartition("/")[2], PendingWindowInDays=WAIT_DAYS)
    kms.delete_alias(AliasName=f"alias/{name}")
    return [f"key alias/{name}: ends in {WAIT_DAYS} days, unusable from now on"]
