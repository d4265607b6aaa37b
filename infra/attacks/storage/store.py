"""The object store itself, asked with the credentials that the attacker's role gives: call by call.

What is asked for is harmless even where the store grants it: the victim's planted file, or a request that is refused
for its form once it is let in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.canary import CANARY
from infra.attacks.scene import Scene
from infra.attacks.storage.asked import MISSING, REFUSED, SIMULATOR, Asked, is_simulator, policies_of
from infra.attacks.storage.group import GROUP, NO_ROLES
from infra.isolation.analysis import Request, permitted
from infra.isolation.aws import code_of
from infra.lake.files import LakeFiles
from infra.places import role_of

Call = Callable[[Any, Asked], Any]

OBJECTS: dict[str, tuple[str, Call]] = {
    "get": ("reads the victim's file", lambda s3, at: s3.get_object(**at.key)["Body"].read()),
    "get-range": ("reads a byte of the victim's file", lambda s3, at: s3.get_object(**at.key, Range="bytes=0-0")),
    "head": ("asks how large the victim's file is", lambda s3, at: s3.head_object(**at.key)),
    "attributes": (
        "asks for the digests of the victim's file",
        lambda s3, at: s3.get_object_attributes(**at.key, ObjectAttributes=["ETag", "ObjectSize"]),
    ),
    "put": ("writes over the victim's file", lambda s3, at: s3.put_object(**at.key, Body=b"mine")),
    "put-new": (
        "writes a new file into the victim's folder",
        lambda s3, at: s3.put_object(Bucket=at.key["Bucket"], Key=f"{at.key['Key']}.sent", Body=b"mine"),
    ),
    "delete": ("removes the victim's file", lambda s3, at: s3.delete_object(**at.key)),
    "delete-version": ("removes a version of it", lambda s3, at: s3.delete_object(**at.key, VersionId="null")),
    "copy-out": ("copies the victim's file to itself", lambda s3, at: s3.copy_object(**at.own, CopySource=at.source)),
    "copy-in": ("copies a file over the victim's", lambda s3, at: s3.copy_object(**at.key, CopySource=at.own)),
    "multipart": ("begins an upload in parts over it", lambda s3, at: s3.create_multipart_upload(**at.key)),
    "tags": ("reads the tags of the victim's file", lambda s3, at: s3.get_object_tagging(**at.key)),
    "put-tags": (
        "tags the victim's file",
        lambda s3, at: s3.put_object_tagging(**at.key, Tagging={"TagSet": []}),
    ),
    "acl": ("reads who may read the victim's file", lambda s3, at: s3.get_object_acl(**at.key)),
    "put-acl": ("opens the victim's file to everybody", lambda s3, at: s3.put_object_acl(**at.key, ACL="private")),
    "versions": (
        "lists versions in the victim's folder",
        lambda s3, at: s3.list_object_versions(Bucket=at.key["Bucket"], Prefix=at.theirs.prefix),
    ),
    "uploads": (
        "lists unfinished uploads of the victim",
        lambda s3, at: s3.list_multipart_uploads(Bucket=at.key["Bucket"], Prefix=at.theirs.prefix),
    ),
    "restore": ("restores the victim's file from an archive", lambda s3, at: s3.restore_object(**at.key)),
    "retention": (
        "locks the victim's file",
        lambda s3, at: s3.put_object_legal_hold(**at.key, LegalHold={"Status": "OFF"}),
    ),
    "select": (
        "queries inside the victim's file",
        lambda s3, at: s3.select_object_content(
            **at.key,
            Expression="SELECT * FROM s3object",
            ExpressionType="SQL",
            InputSerialization={"CSV": {}},
            OutputSerialization={"CSV": {}},
        ),
    ),
    "capitals": (
        "reads it by a key in capitals",
        lambda s3, at: s3.get_object(Bucket=at.key["Bucket"], Key=at.key["Key"].replace("tenants", "TENANTS")),
    ),
    "slashes": (
        "reads it by a key with two slashes",
        lambda s3, at: s3.get_object(Bucket=at.key["Bucket"], Key=at.key["Key"].replace("/", "//", 1)),
    ),
}

BUCKETS: dict[str, tuple[str, Call]] = {
    "list-buckets": ("lists all buckets", lambda s3, _: s3.list_buckets()),
    "bucket-policy": ("reads what the bucket refuses", lambda s3, at: s3.get_bucket_policy(Bucket=at.key["Bucket"])),
    "put-bucket-policy": (
        "writes what the bucket refuses",
        lambda s3, at: s3.put_bucket_policy(Bucket=at.own["Bucket"], Policy="{}"),
    ),
    "delete-bucket-policy": (
        "removes what a bucket refuses",
        lambda s3, at: s3.delete_bucket_policy(Bucket=f"{at.own['Bucket']}-{CANARY}"),
    ),
    "bucket-acl": ("reads who owns the bucket", lambda s3, at: s3.get_bucket_acl(Bucket=at.key["Bucket"])),
    "put-bucket-acl": (
        "gives its bucket away",
        lambda s3, at: s3.put_bucket_acl(Bucket=at.own["Bucket"], ACL="private"),
    ),
    "lifecycle": (
        "has files expire",
        lambda s3, at: s3.put_bucket_lifecycle_configuration(
            Bucket=at.own["Bucket"], LifecycleConfiguration={"Rules": []}
        ),
    ),
    "notification": (
        "has itself told of the victim's files",
        lambda s3, at: s3.get_bucket_notification_configuration(Bucket=at.key["Bucket"]),
    ),
    "versioning": ("asks whether versions are kept", lambda s3, at: s3.get_bucket_versioning(Bucket=at.key["Bucket"])),
    "encryption": ("asks how files are encrypted", lambda s3, at: s3.get_bucket_encryption(Bucket=at.key["Bucket"])),
    "create-bucket": ("makes a bucket", lambda s3, at: s3.create_bucket(Bucket=f"{at.own['Bucket']}-{CANARY}")),
    "delete-bucket": ("removes its bucket", lambda s3, at: s3.delete_bucket(Bucket=at.own["Bucket"])),
}

IDENTITIES: dict[str, tuple[str, str, Call]] = {
    "assume-victim": (
        "sts",
        "assumes the victim's role",
        lambda sts, at: sts.assume_role(RoleArn=at.role_arn(at.scene.victim.tenant.id), RoleSessionName=CANARY),
    ),
    "assume-own": (
        "sts",
        "assumes its own role once more, with a policy of its own",
        lambda sts, at: sts.assume_role(RoleArn=at.role_arn(at.scene.attacker.tenant.id), RoleSessionName=CANARY),
    ),
    "federation": ("sts", "makes a login of its own", lambda sts, _: sts.get_federation_token(Name=CANARY)),
    "widen-own": (
        "iam",
        "widens its role's policy",
        lambda iam, at: iam.put_role_policy(
            RoleName=role_of(at.scene.settings, at.scene.attacker.tenant.id), PolicyName=CANARY, PolicyDocument="{}"
        ),
    ),
    "victims-policy": (
        "iam",
        "reads what the victim's role may do",
        lambda iam, at: iam.list_role_policies(RoleName=role_of(at.scene.settings, at.scene.victim.tenant.id)),
    ),
    "victims-trust": (
        "iam",
        "lets itself assume the victim's role",
        lambda iam, at: iam.update_assume_role_policy(
            RoleName=role_of(at.scene.settings, at.scene.victim.tenant.id), PolicyDocument="{}"
        ),
    ),
    "users": ("iam", "lists the users", lambda iam, _: iam.list_users()),
    "keys": ("kms", "lists the keys of encryption", lambda kms, _: kms.list_keys()),
    "victims-key": (
        "kms",
        "uses the key of the victim's silo",
        lambda kms, at: kms.describe_key(KeyId=f"alias/{role_of(at.scene.settings, at.scene.victim.tenant.id)}"),
    ),
}


GAPS = {"copy-out": "GetObject", "encryption": "GetEncryptionConfiguration"}
"""Calls that moto does not ask about, and what a store would ask for."""


def unasked(scene: Scene, action: str) -> Finding | None:
    """That moto lets something in proves nothing, where the policy's text denies it."""
    at = Asked(scene)
    if not is_simulator(at):
        return None
    resource = f"arn:aws:s3:::{at.source}" if action.endswith("Object") else f"arn:aws:s3:::{at.key['Bucket']}"
    if permitted(Request(f"s3:{action}", resource), policies_of(scene) or []):
        return succeeded(f"the role's policy allows {action}")
    return unproven(SIMULATOR)


def _asked(service: str, call: Call, action: str | None, scene: Scene) -> Finding:
    """Denied when the store says that it is not allowed. Whatever else it says, it says to somebody it let in."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    at = Asked(scene)
    if at.mine.role is None:
        return unproven(NO_ROLES)
    at.client().get_object(**at.own)  # whose credentials do not open its own proves nothing
    try:
        call(at.client(service), at)
        why = "the store did it"
    except ClientError as error:
        code = code_of(error)
        if code in MISSING:
            return unproven(f"this store does not know the call: {error}")
        if code not in REFUSED:
            let_in = succeeded(f"the store let it in, and said {code}")
            return (unasked(scene, action) if action else None) or let_in
        why = f"{code}: {error}"
    else:
        scene.unharmed()
        LakeFiles(at.theirs).delete(f"{scene.prey.path}.sent")
        LakeFiles(at.mine).write(scene.mine.path, scene.mine.content)
        return (unasked(scene, action) if action else None) or succeeded(why)
    return denied(why) if scene.unharmed() else succeeded("the victim's file was changed; it is put back")


for _calls in (OBJECTS, BUCKETS):
    for _name, (_what, _call) in _calls.items():
        GROUP.add(f"s3-{_name}", f"{_what}, with its own role", partial(_asked, "s3", _call, GAPS.get(_name)), on="s3")
for _name, (_service, _what, _call) in IDENTITIES.items():
    GROUP.add(f"{_service}-{_name}", f"{_what}, with its own role", partial(_asked, _service, _call, None), on="s3")
