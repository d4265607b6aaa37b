"""The object store itself, asked with the attacker's credentials for what takes more than one call."""

from __future__ import annotations

import urllib.error
import urllib.request

from infra.attacks.attempt import Finding, denied, succeeded, unproven
from infra.attacks.canary import CANARY
from infra.attacks.scene import Scene
from infra.attacks.storage.asked import REFUSED, SIMULATOR, Asked, is_simulator
from infra.attacks.storage.group import GROUP, NO_ROLES
from infra.attacks.storage.store import unasked
from infra.isolation.aws import REGION, code_of
from infra.lake.files import LakeFiles
from infra.lake.location import Location


@GROUP.attack("removes the victim's file among several at once", on="s3")
def s3_delete_many(scene: Scene) -> Finding:
    at = Asked(scene)
    if at.mine.role is None:
        return unproven(NO_ROLES)
    wanted = {"Objects": [{"Key": at.key["Key"]}]}
    answer = at.client().delete_objects(Bucket=at.key["Bucket"], Delete=wanted)
    codes = [each["Code"] for each in answer.get("Errors", [])]
    if not scene.unharmed() or codes != ["AccessDenied"]:
        return succeeded(f"the store answers {codes}")
    return denied(f"{codes[0]}, for the one file")


@GROUP.attack("copies the victim's file as a part of an upload of its own", on="s3")
def s3_copy_part(scene: Scene) -> Finding:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    at = Asked(scene)
    if at.mine.role is None:
        return unproven(NO_ROLES)
    s3, mine = at.client(), {"Bucket": at.own["Bucket"], "Key": f"{at.own['Key']}.parts"}
    upload = s3.create_multipart_upload(**mine)["UploadId"]
    try:
        s3.upload_part_copy(**mine, UploadId=upload, PartNumber=1, CopySource=at.source)
    except ClientError as error:
        if code_of(error) not in REFUSED:
            raise
        return denied(f"{code_of(error)}: {error}")
    finally:
        s3.abort_multipart_upload(**mine, UploadId=upload)
    return unasked(scene, "GetObject") or succeeded("the store copied it")


@GROUP.attack("writes a part of an upload that the victim has begun", on="s3")
def s3_foreign_part(scene: Scene) -> Finding:
    from botocore.exceptions import ClientError

    at = Asked(scene)
    if at.mine.role is None:
        return unproven(NO_ROLES)
    theirs, key = at.client(credentials=at.theirs.credentials()), at.key | {"Key": f"{at.key['Key']}.parts"}
    upload = theirs.create_multipart_upload(**key)["UploadId"]
    try:
        at.client().upload_part(**key, UploadId=upload, PartNumber=1, Body=b"mine")
    except ClientError as error:
        if code_of(error) not in REFUSED:
            raise
        return denied(f"{code_of(error)}: {error}")
    finally:
        theirs.abort_multipart_upload(**key, UploadId=upload)
    return succeeded("the store took the part")


@GROUP.attack("signs an address of the victim's file for whoever has it", on="s3")
def s3_signed_address(scene: Scene) -> Finding:
    at = Asked(scene)
    if at.mine.role is None:
        return unproven(NO_ROLES)
    address = at.client().generate_presigned_url("get_object", Params=at.key, ExpiresIn=60)
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return succeeded(f"the store answers with status {answer.status}")
    except urllib.error.HTTPError as error:
        if error.code == 500 and is_simulator(at):
            return unproven(f"{SIMULATOR} (it falls over)")
        if error.code != 403:
            raise
        return denied(f"403: {error.read(200).decode(errors='replace')}")


@GROUP.attack("asks without any credentials, as everybody could", on="s3")
def s3_anonymous(scene: Scene) -> Finding:
    at = Asked(scene)
    root = at.theirs.endpoint or f"https://s3.{at.theirs.region or REGION}.amazonaws.com"
    try:
        with urllib.request.urlopen(f"{root}/{at.source}", timeout=20) as answer:
            return succeeded(f"the store answers with status {answer.status}")
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise
        return denied(f"{error.code}: nobody is nobody")


@GROUP.attack("reads a folder whose name goes on where its own ends", on="s3")
def s3_sibling(scene: Scene) -> Finding:
    """`tenants/acme-foods` begins like `tenants/acme`: a policy that forgets the slash opens both."""
    from botocore.exceptions import ClientError

    at = Asked(scene)
    if at.mine.role is None:
        return unproven(NO_ROLES)
    sibling = Location.of(f"{at.mine.url}-{CANARY}", scene.settings.lake_options)
    LakeFiles(sibling).write("file.txt", scene.prey.content)
    try:
        at.client().get_object(Bucket=sibling.bucket, Key=f"{sibling.prefix}/file.txt")
    except ClientError as error:
        if code_of(error) not in REFUSED:
            raise
        return denied(f"{code_of(error)}: {error}")
    finally:
        LakeFiles(sibling).delete("file.txt")
    return succeeded("the store gave it")
