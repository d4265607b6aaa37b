"""Places that suites are run against: a local folder and S3."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from infra.lake.location import Location


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A real S3 server; yields its address. A process of its own: clients may keep the interpreter locked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=["file", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "file":
        return Location((tmp_path / "lake").as_uri())
    endpoint = request.getfixturevalue("s3")
    bucket = f"lake-{abs(hash(tmp_path)) % 10**9}"
    root = Location(f"s3://{bucket}", key="key", secret="secret", endpoint=endpoint, region="us-east-1")
    boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    ).create_bucket(Bucket=bucket)
    return root.child("tenants", "acme")
