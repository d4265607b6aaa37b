"""Clients of the object store's own services, each with the explicit login of some settings, never a shared one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from infra.settings import LakeOptions, StorageOptions
from tasks.domain.errors import StorageUnavailable

REGION = "us-east-1"
"""Where nothing says otherwise."""

AMAZON = "aws"
"""What `ORCHARD_STORAGE__ENDPOINT_URL` says when the lake has an endpoint of its own, but IAM, STS and KMS do not."""


def client(service: str, options: LakeOptions, storage: StorageOptions) -> Any:
    """This process's client of `s3`, `iam`, `sts` or `kms` for that login; threads may share it."""
    return _client(os.getpid(), service, options, storage)  # a forked child must not share its parent's sockets


@lru_cache(maxsize=32)
def _client(_: int, service: str, options: LakeOptions, storage: StorageOptions) -> Any:
    import botocore.session  # type: ignore[import-untyped]

    endpoint = options.endpoint_url
    if service != "s3" and storage.endpoint_url is not None:
        endpoint = None if storage.endpoint_url == AMAZON else storage.endpoint_url
    return botocore.session.get_session().create_client(
        service,
        region_name=options.region or REGION,
        endpoint_url=endpoint,
        aws_access_key_id=options.key and options.key.get_secret_value(),
        aws_secret_access_key=options.secret and options.secret.get_secret_value(),
        aws_session_token=options.token and options.token.get_secret_value(),
    )


@dataclass(frozen=True)
class Identity:
    """Whose login it is: the account, its partition (`aws`, `aws-cn` ...), and the user or role as policies name it."""

    account: str
    partition: str
    principal: str

    def role(self, name: str) -> str:
        """The ARN of a role of the same account."""
        return f"arn:{self.partition}:iam::{self.account}:role/{name}"


@lru_cache(maxsize=16)
def identity(options: LakeOptions, storage: StorageOptions) -> Identity:
    """Whose login these settings have. Raises `StorageUnavailable`."""
    hint = "see ORCHARD_LAKE_OPTIONS__*"
    with aws_errors("the object store does not know this login", "sts:GetCallerIdentity", hint):
        answer = client("sts", options, storage).get_caller_identity()
    _, partition, _, _, account, name = answer["Arn"].split(":", 5)
    principal = answer["Arn"]
    if name.startswith("assumed-role/"):  # a session's name is no principal, its role's is
        principal = f"arn:{partition}:iam::{account}:role/{name.split('/')[1]}"
    return Identity(account, partition, principal)


@contextmanager
def aws_errors(what: str, where: str, hint: str) -> Iterator[None]:
    """Turns whatever a client raises into `StorageUnavailable`: rights take a while to be known, networks break."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StorageUnavailable(what, where=where, found=f"{type(error).__name__}: {error}", hint=hint) from error


def tag_set(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as S3 and IAM take them."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def said(tags: Mapping[str, str]) -> str:
    """Tags for people."""
    return "tagged " + ", ".join(f"{name}={value}" for name, value in tags.items())


def code_of(error: Exception) -> str:
    """The code of a client's error, such as `NoSuchEntity`."""
    code: str = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return code
