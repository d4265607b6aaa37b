"""What object stores say of new files: the JSON of AWS S3, of EventBridge and of MinIO, down to places in the inbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_plus, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.api.problems import INVALID, UNREADABLE, Problem
from infra.inbox import place_of
from tasks.domain.errors import InvalidDefinition

MAX_PATH = 500
TEST_EVENT = "s3:TestEvent"
"""What AWS sends once when a bucket is connected; it is about no file."""


class _Seen(BaseModel):
    """Stores add fields as they please; these are the ones that count."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Bucket(_Seen):
    name: str


class _Object(_Seen):
    key: str


class _Entity(_Seen):
    bucket: _Bucket
    object: _Object


class _Record(_Seen):
    """One record of AWS S3 or MinIO: `ObjectCreated:Put` or `s3:ObjectCreated:Put`; its key is URL-encoded."""

    event_name: str = Field(alias="eventName")
    s3: _Entity

    def stored(self) -> StoredObject:
        created = self.event_name.removeprefix("s3:").startswith("ObjectCreated:")
        return StoredObject(created, self.s3.bucket.name, unquote_plus(self.s3.object.key))


class _EventBridgeEvent(_Seen):
    """An event of EventBridge, whose key is as it is."""

    detail_type: str = Field(alias="detail-type")
    detail: _Entity

    def stored(self) -> StoredObject:
        return StoredObject(self.detail_type == "Object Created", self.detail.bucket.name, self.detail.object.key)


class StoredObject(NamedTuple):
    """An object that a notification is about, and whether it is there now."""

    created: bool
    bucket: str
    key: str


def objects_of(body: bytes) -> list[StoredObject | None]:
    """The objects that a notification names, None for each part that is not understood. Raises `Problem`."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(UNREADABLE, "the body is not JSON") from None
    if isinstance(message, dict):
        if message.get("Event") == TEST_EVENT:
            return []
        if isinstance(records := message.get("Records"), list):
            return [_understood(_Record, record) for record in records]
        if "detail" in message:
            return [_understood(_EventBridgeEvent, message)]
    raise Problem(INVALID, "this is no notification of AWS S3, EventBridge or MinIO: it has neither Records nor detail")


def _understood(kind: type[_Record | _EventBridgeEvent], part: Any) -> StoredObject | None:
    try:
        return kind.model_validate(part).stored()
    except ValidationError:
        return None


def inbox_paths(objects: list[StoredObject | None], inbox_url: str) -> Iterator[str]:
    """Places below the inbox, `tenant/use_case/purpose/name`, of the objects that are new there. An inbox that is no
    bucket has none."""
    inbox = urlsplit(inbox_url)
    prefix = f"{inbox.path.strip('/')}/".removeprefix("/")
    for each in objects:
        if each is None or not each.created or inbox.scheme != "s3" or each.bucket != inbox.netloc:
            continue
        path = each.key.removeprefix(prefix)
        if each.key.startswith(prefix) and _is_place(path):
            yield path


def _is_place(path: str) -> bool:
    """Whether it leads to one file of one tenant's use case: a path becomes the name of an event's resource."""
    try:
        place_of(path)
    except InvalidDefinition:
        return False
    return path.isprintable() and len(path) <= MAX_PATH
