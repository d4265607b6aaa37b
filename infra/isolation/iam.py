"""The role of a tenant in IAM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from infra.isolation.aws import code_of, said, tag_set
from infra.isolation.policies import Document, canonical

POLICY = "folders"
"""Name of the inline policy."""


def ensure_role(
    iam: Any, name: str, tenant: str, trust: Document, session_s: int, tags: Mapping[str, str]
) -> list[str]:
    """Makes the role, or brings up to date who may assume it and its tags; says what changed."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    try:
        role = iam.get_role(RoleName=name)["Role"]
    except ClientError as error:
        if code_of(error) != "NoSuchEntity":
            raise
        iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(trust),
            MaxSessionDuration=max(session_s, 3600),
            Description=f"opens the files of Orchard's tenant {tenant}",
            Tags=tag_set(tags),
        )
        return [f"role {name}: made"]
    changed = []
    if canonical(role["AssumeRolePolicyDocument"]) != canonical(trust):
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
        changed.append(f"role {name}: who may assume it")
    if role.get("MaxSessionDuration", 3600) < session_s:
        iam.update_role(RoleName=name, MaxSessionDuration=session_s)
        changed.append(f"role {name}: sessions of up to {session_s} s")
    present = {each["Key"]: each["Value"] for each in role.get("Tags", [])}
    if not tags.items() <= present.items():
        iam.tag_role(RoleName=name, Tags=tag_set(tags))
        changed.append(f"role {name}: {said(tags)}")
    return changed


def ensure_policy(iam: Any, name: str, policy: Document) -> list[str]:
    """Gives the role its policy, in place of the one that it has; says what changed."""
    from botocore.exceptions import ClientError

    try:
        present = iam.get_role_policy(RoleName=name, PolicyName=POLICY)["PolicyDocument"]
    except ClientError as error:
        if code_of(error) != "NoSuchEntity":
            raise
        present = None
    if present is not None and canonical(present) == canonical(policy):
        return []
    iam.put_role_policy(RoleName=name, PolicyName=POLICY, PolicyDocument=json.dumps(policy))
    return [f"role {name}: what it may do"]


def remove_role(iam: Any, name: str) -> list[str]:
    """Removes the role; what was assumed before can do nothing from then on."""
    from botocore.exceptions import ClientError

    try:
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        iam.delete_role(RoleName=name)
    except ClientError as error:
        if code_of(error) != "NoSuchEntity":
            raise
        return []
    return [f"role {name}: removed"]
