"""An object store that asks who is there: moto's server with authorization on, and what a test does with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from infra.isolation.credentials import Credentials
from infra.isolation.roles import provide
from infra.places import Places, places
from infra.settings import LakeOptions, Settings, load_settings
from tasks.domain.tenant import Isolation, Tenant
from tests.samples import sample_tenant

FREE = 3
"""Calls that nobody is asked about, so that there is an operator at all."""

EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
REGION = "us-east-1"
_SESSION = boto3.session.Session()


@dataclass(frozen=True)
class Store:
    """Where it is, and the operator's login."""

    url: str
    key: str
    secret: str

    def options(self) -> LakeOptions:
        return LakeOptions(key=self.key, secret=self.secret, endpoint_url=self.url, region=REGION)

    def client(self, service: str, as_: Credentials | None = None) -> Any:
        """A client of the operator, or with some credentials."""
        who = as_ or Credentials(self.key, self.secret)
        return _SESSION.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=who.key,
            aws_secret_access_key=who.secret,
            aws_session_token=who.token,
        )

    def settings(self, home: Path, name: str, **changes: Any) -> Settings:
        """Settings of an Orchard whose lake and artifacts are here, in a bucket of that name."""
        buckets = [bucket["Name"] for bucket in self.client("s3").list_buckets()["Buckets"]]
        if name not in buckets:
            self.client("s3").create_bucket(Bucket=name)
        return load_settings(
            home=home,
            lake_url=f"s3://{name}/lake",
            training_artifacts_url=f"s3://{name}/artifacts/training",
            production_artifacts_url=f"s3://{name}/artifacts/production",
            lake_options=self.options(),
            **changes,
        )


def provided(settings: Settings, tenant_id: str, isolation: Isolation = Isolation.POOL) -> Places:
    """The places of a tenant that was just provided with them."""
    provide(settings, isolated(tenant_id, isolation))
    return places(settings, tenant_id, isolation)


def isolated(tenant_id: str, isolation: Isolation) -> Tenant:
    return sample_tenant(tenant_id).model_copy(update={"isolation": isolation})


@contextmanager
def running_store(*arguments: str, record: Path | None = None) -> Iterator[Store]:
    """The server, in a process of its own: clients may keep the interpreter locked. `record`: where it writes what it
    was asked for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        serving = ["moto.server", "-H", "127.0.0.1", "-p", str(port), *arguments]
        if record is not None:
            serving = ["tests.isolation.recorder", str(port), str(record)]
        server = subprocess.Popen(
            [sys.executable, "-m", *serving],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(FREE)},
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 30
            while not _listens(port):
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield _with_operator(f"{'https' if arguments else 'http'}://127.0.0.1:{port}")
        finally:
            server.terminate()
            server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _with_operator(url: str) -> Store:
    iam = Store(url, "nobody", "nothing").client("iam")
    iam.create_user(UserName="operator")
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    iam.put_user_policy(UserName="operator", PolicyName="everything", PolicyDocument=json.dumps(EVERYTHING))
    return Store(url, key["AccessKeyId"], key["SecretAccessKey"])
