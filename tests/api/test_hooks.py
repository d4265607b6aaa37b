"""Notifications of object stores: each shape leads to the same event, and nothing else to any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.api.notifications import StoredObject, inbox_paths
from infra.inbox import place_of
from tests.api.served import Api, problem

PATH = "acme/sales/history/sales of 2026+.csv"


def aws(key: str, event: str = "ObjectCreated:Put", bucket: str = "files") -> dict[str, Any]:
    return {
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1", "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "inbox",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "00"},
        },
    }  # fmt: skip


def minio(key: str, event: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    record = aws(key, event) | {"eventSource": "minio:s3", "source": {"host": "127.0.0.1"}}
    return {"EventName": event, "Key": "files/in/box/whatever", "Records": [record]}


def event_bridge(key: str, kind: str = "Object Created") -> dict[str, Any]:
    detail = {"version": "0", "bucket": {"name": "files"}, "object": {"key": key, "size": 5}, "reason": "PutObject"}
    return {
        "version": "0",
        "detail-type": kind,
        "source": "aws.s3",
        "resources": ["arn:aws:s3:::files"],
        "detail": detail,
    }


ENCODED = "in/box/acme/sales/history/sales+of+2026%2B.csv"


@pytest.fixture
def hook(api: Api) -> Iterator[httpx.Client]:
    api.announced.clear()
    with api.hook() as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        {"Records": [aws(ENCODED)]},
        {"Records": [aws(ENCODED, "ObjectCreated:CompleteMultipartUpload")]},
        event_bridge(f"in/box/{PATH}"),
        minio(ENCODED),
        minio(ENCODED.replace("/", "%2F")),
    ],
    ids=["aws", "aws multipart", "event bridge", "minio", "minio quoted"],
)
def test_every_shape_leads_to_the_event(api: Api, hook: httpx.Client, body: dict[str, Any]) -> None:
    answer = hook.post("/hooks/s3", json=body)
    assert (answer.status_code, answer.json()) == (200, {"taken": 1, "ignored": 0})
    assert api.announced == [PATH]


@pytest.mark.parametrize(
    "body",
    [
        {"Records": [aws(ENCODED, "ObjectRemoved:Delete")]},
        minio(ENCODED, "s3:ObjectRemoved:Delete"),
        minio(ENCODED, "s3:ObjectAccessed:Get"),
        event_bridge(f"in/box/{PATH}", "Object Deleted"),
        {"Records": [aws(ENCODED, bucket="other")]},
        {"Records": [aws("acme/sales/history/a.csv")]},
        {"Records": [aws("in/boxes/acme/sales/history/a.csv")]},
        {"Records": [aws("in/box/acme/sales/history/")]},
        {"Records": [aws("in/box/acme/sales/a.csv")]},
        {"Records": [aws("in/box/acme/sales/history/deep/a.csv")]},
        {"Records": [aws("in/box/acme/sales/wishes/a.csv")]},
        {"Records": [aws("in/box/Acme/sales/history/a.csv")]},
        {"Records": [aws("in/box/../sales/history/a.csv")]},
        {"Records": [aws("in/box/acme/sales/history/..")]},
        {"Records": [aws("in/box/acme/sales/history/%2E%2E")]},
        {"Records": [aws("in/box/acme/sales/history/a%00b")]},
        {"Records": [aws("in/box/acme/sales/history/a%0Ab")]},
        {"Records": [aws("in/box/acme/sales/history/" + "x" * 500)]},
        {"Records": ["odd"]},
        {"Records": [{"eventName": "ObjectCreated:Put"}]},
        {"detail": 1},
    ],
    ids=lambda body: str(body)[-60:],
)
def test_everything_else_is_ignored(api: Api, hook: httpx.Client, body: dict[str, Any]) -> None:
    answer = hook.post("/hooks/s3", json=body)
    assert (answer.status_code, answer.json()) == (200, {"taken": 0, "ignored": 1})
    assert api.announced == []


def test_one_notification_may_be_about_many_objects(api: Api, hook: httpx.Client) -> None:
    good = [aws(f"in/box/acme/sales/scoring/{n}.csv") for n in range(3)]
    answer = hook.post("/hooks/s3", json={"Records": [*good, aws("elsewhere"), None]})
    assert answer.json() == {"taken": 3, "ignored": 2}
    assert api.announced == [f"acme/sales/scoring/{n}.csv" for n in range(3)]


def test_the_test_event_of_aws_is_welcome(api: Api, hook: httpx.Client) -> None:
    answer = hook.post("/hooks/s3", json={"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "files"})
    assert (answer.status_code, answer.json()) == (200, {"taken": 0, "ignored": 0})


def test_what_is_no_notification_is_refused(api: Api, hook: httpx.Client) -> None:
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        problem(hook.post("/hooks/s3", content=body), 400, "unreadable")
    for odd in ([], {}, 1, "Records", {"Records": {}}):
        problem(hook.post("/hooks/s3", json=odd), 422, "invalid")
    problem(hook.post("/hooks/s3", content=b" " * 1_000_001), 413, "too-large")
    problem(hook.post("/hooks/s3", content=iter([b" " * 600_000] * 2)), 413, "too-large")
    assert api.announced == []


def test_only_who_knows_the_secret_is_heard(api: Api) -> None:
    api.announced.clear()
    for bearer in (None, "wrong", api.settings.hook_secret()[:-1], f"{api.settings.hook_secret()}x"):
        with api.client(bearer) as client:
            answer = client.post("/hooks/s3", json={"Records": [aws(ENCODED)]})
            assert "hook secret" in problem(answer, 401, "unauthenticated")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert api.announced == []


@pytest.mark.parametrize("inbox", ["s3://files", "s3://files/", "s3://files/in/box", "s3://files/in/box/"])
def test_an_inbox_may_lie_anywhere_in_its_bucket(inbox: str) -> None:
    prefix = "in/box/" if "box" in inbox else ""
    assert list(inbox_paths([StoredObject(True, "files", f"{prefix}{PATH}")], inbox)) == [PATH]


def test_a_folder_is_no_bucket() -> None:
    objects = [StoredObject(True, bucket, PATH) for bucket in ("", "srv", "files")]
    assert not list(inbox_paths([*objects], "file:///srv/inbox"))


@given(
    st.lists(
        st.sampled_from(["acme", "sales", "history", "a.csv", "..", ".", "", "A", "\\", "\0", "ü", "/"]), max_size=6
    )
)
def test_whatever_a_key_holds_a_path_leads_to_one_place(parts: list[str]) -> None:
    for path in inbox_paths([StoredObject(True, "files", "/".join(parts))], "s3://files"):
        place = place_of(path)
        assert path == "/".join([place.tenant, place.use_case, place.purpose, path.rpartition("/")[2]])
        assert not {"", ".", ".."} & set(path.split("/"))
