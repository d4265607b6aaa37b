"""What is asked of the object store with the attacker's credentials, and what is known of the store."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from infra.attacks.scene import Scene
from infra.isolation.aws import REGION, client, identity
from infra.isolation.credentials import Credentials
from infra.isolation.policies import Document
from infra.lake.location import Location
from infra.places import role_of
from infra.settings import Settings

REFUSED = {"AccessDenied", "AccessDeniedException", "403", "Forbidden", "AllAccessDisabled", "InvalidAccessKeyId"}
MISSING = {"NotImplemented", "501", "MethodNotAllowed"}
"""What a store says of calls that it does not know."""


@dataclass(frozen=True)
class Asked:
    """What a call can name: the attacker's own folder, and the victim's planted file."""

    scene: Scene

    @property
    def mine(self) -> Location:
        return self.scene.attacker.location

    @property
    def theirs(self) -> Location:
        return self.scene.prey_places.lake

    @property
    def key(self) -> dict[str, str]:
        """The victim's planted file."""
        return {"Bucket": self.theirs.bucket or "", "Key": f"{self.theirs.prefix}/{self.scene.prey.path}"}

    @property
    def own(self) -> dict[str, str]:
        """The attacker's planted file."""
        return {"Bucket": self.mine.bucket or "", "Key": f"{self.mine.prefix}/{self.scene.mine.path}"}

    @property
    def source(self) -> str:
        """The victim's file as the source of a copy."""
        return f"{self.key['Bucket']}/{self.key['Key']}"

    def client(self, service: str = "s3", credentials: Credentials | None = None) -> Any:
        """A client with the attacker's credentials, of this proof alone."""
        import botocore.session  # type: ignore[import-untyped]

        settings, who = self.scene.settings, credentials or self.mine.credentials()
        name = f"{service} as {who.key}"
        if (known := self.scene.kept.get(name)) is not None:
            return known
        session: Any = self.scene.kept.setdefault("botocore", botocore.session.get_session())  # reads models once
        endpoint = self.mine.endpoint
        if service != "s3" and settings.storage.endpoint_url is not None:
            endpoint = None if settings.storage.endpoint_url == "aws" else settings.storage.endpoint_url
        made = session.create_client(
            service,
            region_name=self.mine.region or REGION,
            endpoint_url=endpoint,
            aws_access_key_id=who.key,
            aws_secret_access_key=who.secret,
            aws_session_token=who.token,
        )
        self.scene.kept[name] = made
        return made

    def role_arn(self, tenant: str) -> str:
        """The ARN of a tenant's role."""
        settings = self.scene.settings
        return identity(settings.lake_options, settings.storage).role(role_of(settings, tenant))


SIMULATOR = "this store is moto, a simulator that does not ask about it; by its text, the role's policy denies it"


def is_simulator(at: Asked) -> bool:
    """Whether the store is moto, which tests run against. It leaves conditions of policies and sources of copies
    unasked; of a store that is meant for data, that would be a hole."""
    known = at.scene.kept.get("simulator")
    if known is None:
        known = False
        if at.mine.endpoint is not None:
            try:
                with urllib.request.urlopen(f"{at.mine.endpoint}/moto-api/config", timeout=20) as answer:
                    known = "batch" in json.loads(answer.read())
            except (urllib.error.HTTPError, ValueError):
                known = False
        at.scene.kept["simulator"] = known
    return bool(known)


def live_policies(settings: Settings, tenant: str) -> list[Document]:
    """The policies of a tenant's role as the store has them. Raises what its client raises."""
    iam, role = client("iam", settings.lake_options, settings.storage), role_of(settings, tenant)
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    found = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
    return [json.loads(each) if isinstance(each, str) else each for each in found]


def policies_of(scene: Scene) -> list[Document] | None:
    """Those of the attacker's role; None where there are no roles."""
    if scene.attacker.location.role is None:
        return None
    known = scene.kept.get("policies")
    if known is None:
        known = scene.kept["policies"] = live_policies(scene.settings, scene.attacker.tenant.id)
    assert isinstance(known, list)
    return known
