"""An inbox on S3: a notification, and nothing else, leads to predictions."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from infra import servers
from tasks.domain.names import Purpose
from tasks.domain.run import UploadStatus
from tasks.domain.tenant import Tier
from tests.benchmarks.platform.running import platform_up, rows, small_tenant, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PORT = 5955
KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}


@pytest.fixture
def bucket() -> Iterator[object]:
    """A bucket on a real S3 endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=PORT, verbose=False)
    server.start()
    try:
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{PORT}", region_name="us-east-1", **KEYS)
        client.create_bucket(Bucket="drop")
        yield client
    finally:
        server.stop()


def notification(key: str) -> dict[str, object]:
    """What S3 sends when an object was created."""
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "drop"}, "object": {"key": key}}}
    return {"Records": [{"eventSource": "aws:s3", "eventVersion": "2.1", **record}]}


def test_a_notification_leads_to_predictions(bucket: object) -> None:
    inbox = {
        "ORCHARD_INBOX_URL": "s3://drop/inbox",
        "ORCHARD_LAKE_OPTIONS__KEY": "key",
        "ORCHARD_LAKE_OPTIONS__SECRET": "secret",
        "ORCHARD_LAKE_OPTIONS__ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
        "ORCHARD_LAKE_OPTIONS__REGION": "us-east-1",
    }
    with platform_up(**inbox) as running:
        running.onboard(small_tenant("cloudy", Tier.PREMIUM))
        space = running.platform.open_space("cloudy")
        api = servers.running(running.settings.home, "api")
        assert api is not None
        header = {"Authorization": f"Bearer {running.settings.hook_secret()}"}
        for number, purpose in enumerate((Purpose.HISTORY, Purpose.SCORING), start=1):
            key = f"inbox/cloudy/demand/{purpose}/{number}.csv"
            content = rows(2_500, 1_000 * number, target=purpose is Purpose.HISTORY)
            bucket.put_object(Bucket="drop", Key=key, Body=content)  # type: ignore[attr-defined]
            answer = httpx.post(f"{api.url}/hooks/s3", json=notification(key), headers=header)
            assert answer.status_code == 200, answer.text
            until(lambda n=number: [u.status for u in space.records.uploads()] == [UploadStatus.DONE] * n, 120)
        assert len(space.records.predictions("demand")) == 2_500
        left = bucket.list_objects_v2(Bucket="drop")  # type: ignore[attr-defined]
        assert left["KeyCount"] == 0
        assert httpx.post(f"{api.url}/hooks/s3", json=notification(key)).status_code == 401
