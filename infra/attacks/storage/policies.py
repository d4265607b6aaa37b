"""What the attacker's role may do, by its policy as the store has it: for what a store does not enforce.

Real stores bind lists to a prefix; a simulator does not look at conditions. What is listed there is unproven, and the
policy's own text is judged instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.scene import Scene
from infra.attacks.storage.asked import REFUSED, SIMULATOR, Asked, is_simulator, policies_of
from infra.attacks.storage.group import GROUP, NO_ROLES
from infra.isolation.analysis import Request, beyond, list_request, object_request, permitted
from infra.isolation.aws import client, code_of, identity
from infra.isolation.policies import Document, shared_bucket_policy
from infra.places import role_of

EVERYTHING: Document = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
"""Of somebody who may do all that the bucket itself does not refuse."""


List = Callable[[Asked], dict[str, Any]]

LISTS: dict[str, tuple[str, List]] = {
    "victim": ("lists the victim's folder", lambda at: {"Prefix": f"{at.theirs.prefix}/"}),
    "all": ("lists the whole bucket", lambda _: {}),
    "folders": (
        "lists the folders of all tenants",
        lambda at: {"Prefix": f"{at.theirs.prefix.rpartition('/')[0]}/", "Delimiter": "/"},
    ),
    "beginning": ("lists what begins as the victim's folder", lambda at: {"Prefix": at.theirs.prefix[:-1]}),
    "own-beginning": ("lists what begins as its own folder", lambda at: {"Prefix": at.mine.prefix[:-1]}),
    "after": ("lists from the victim's folder on", lambda at: {"StartAfter": f"{at.theirs.prefix}/"}),
    "parent": ("lists its own folder and up", lambda at: {"Prefix": f"{at.mine.prefix}/../"}),
}


def _listed(wanted: List, scene: Scene) -> Finding:
    """Denied by the store or, where that ignores conditions, unproven: then the policy has to deny it by its text."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    at, documents = Asked(scene), policies_of(scene)
    if documents is None:
        return unproven(NO_ROLES)
    asked = wanted(at)
    bucket = at.key["Bucket"]
    inside = str(asked.get("Prefix", "")).startswith(f"{at.mine.prefix}/")
    allowed = permitted(list_request(bucket, asked.get("Prefix")), documents)
    if allowed and not inside:
        return succeeded("the role's policy allows it")
    try:
        found = at.client().list_objects_v2(Bucket=bucket, **asked)
    except ClientError as error:
        if code_of(error) not in REFUSED:
            raise
        return denied(f"{code_of(error)}: {error}")
    keys = [each["Key"] for each in found.get("Contents", [])] + [
        each["Prefix"] for each in found.get("CommonPrefixes", [])
    ]
    foreign = [key for key in keys if not key.startswith(f"{at.mine.prefix}/")]
    if not foreign:
        return denied(f"{len(keys)} keys are listed, all its own")
    if not is_simulator(at):
        return succeeded(f"{len(foreign)} keys of others are listed")
    return unproven(SIMULATOR)


for _name, (_what, _wanted) in LISTS.items():
    GROUP.add(f"s3-list-{_name}", f"{_what}, with its own role", partial(_listed, _wanted), on="s3")

ACTIONS = {
    "GetObject": "read", "PutObject": "write", "DeleteObject": "remove", "GetObjectVersion": "read old versions of",
    "PutObjectAcl": "open", "GetObjectTagging": "read the tags of", "RestoreObject": "restore",
    "AbortMultipartUpload": "end uploads of", "PutObjectRetention": "lock", "BypassGovernanceRetention": "unlock",
}  # fmt: skip


def _by_text(action: str, scene: Scene) -> Finding:
    documents = policies_of(scene)
    if documents is None:
        return unproven(NO_ROLES)
    at = Asked(scene)
    for key in (at.key["Key"], f"{at.theirs.prefix}/tables/x/part.parquet", f"{at.mine.prefix}-x/file"):
        if permitted(object_request(action, at.key["Bucket"], key), documents):
            return succeeded(f"the policy allows {action} on {key}")
    return denied(f"no statement of {len(documents)} policies allows s3:{action} outside its folders")


for _action, _verb in ACTIONS.items():
    GROUP.add(
        f"policy-{_action.lower()}",
        f"finds a line of its policy by which it may {_verb} files of the victim's",
        partial(_by_text, _action),
        on="s3",
    )


@GROUP.attack("finds anything in its policy that reaches beyond its folders", on="s3")
def policy_beyond(scene: Scene) -> Finding:
    documents = policies_of(scene)
    if documents is None:
        return unproven(NO_ROLES)
    found = [line for document in documents for line in beyond(document, scene.my_places.all())]
    return succeeded("; ".join(found)) if found else denied("whatever it allows is inside its folders")


@GROUP.attack("finds a way in its policy to change roles or policies", on="s3")
def policy_roles(scene: Scene) -> Finding:
    documents = policies_of(scene)
    if documents is None:
        return unproven(NO_ROLES)
    role = Asked(scene).role_arn(scene.victim.tenant.id)
    for action in ("sts:AssumeRole", "iam:PassRole", "iam:PutRolePolicy", "iam:UpdateAssumeRolePolicy"):
        if permitted(Request(action, role), documents):
            return succeeded(f"the policy allows {action}")
    return denied("no statement is about roles")


@GROUP.attack("finds itself among those who may assume the victim's role", on="s3")
def policy_trust(scene: Scene) -> Finding:
    settings = scene.settings
    if scene.attacker.location.role is None:
        return unproven(NO_ROLES)
    iam = client("iam", settings.lake_options, settings.storage)
    role = iam.get_role(RoleName=role_of(settings, scene.victim.tenant.id))["Role"]
    trusted = role["AssumeRolePolicyDocument"]
    at = Asked(scene)
    own = at.role_arn(scene.attacker.tenant.id)
    request = Request("sts:AssumeRole", role["Arn"], {"aws:PrincipalArn": own})
    if permitted(request, [], [trusted]):
        return succeeded("the victim's role trusts the attacker's")
    who = [statement.get("Principal") for statement in trusted["Statement"]]
    return denied(f"it trusts {who} alone")


@GROUP.attack("speaks to the store in the clear", on="s3")
def plain_transport(scene: Scene) -> Finding:
    """Asked of the policy that the bucket has; an endpoint that speaks nothing but plain HTTP is given none, and only
    the text of what it would be given can be judged."""
    settings, place = scene.settings, scene.attacker.location
    bucket = place.bucket or ""
    request = object_request("GetObject", bucket, f"{place.prefix}/file", aws__SecureTransport="false")
    plain = (place.endpoint or "").startswith("http://")
    if plain:
        who = identity(settings.lake_options, settings.storage)
        refusing = shared_bucket_policy(who, bucket, settings.storage.kms_key)
    else:
        s3 = client("s3", settings.lake_options, settings.storage)
        refusing = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    if permitted(request, [EVERYTHING], [refusing]):
        return succeeded("the bucket's policy lets it through")
    if plain:
        return unproven("this store speaks nothing else; by its text, what buckets are told to refuse refuses it")
    return denied("the bucket's policy refuses it")
