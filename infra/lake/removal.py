"""Removing all that lies below a folder or a prefix for good, old versions of objects included; and what still lies
there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from infra.isolation.aws import REGION, code_of
from infra.lake.location import Location, storage_errors

AT_ONCE = 1000
"""Objects of one request, at most."""


class Size(NamedTuple):
    """How much lies somewhere."""

    files: int
    bytes: int


def size_of(location: Location) -> Size:
    """Files and bytes below a location; on S3, every version of every object counts."""
    sizes = [size for _, size in _entries(location)]
    return Size(len(sizes), sum(sizes))


def remove(location: Location) -> None:
    """Removes the location and all below it; nothing happens where there is none."""
    with storage_errors(location.url):
        if (folder := location.local) is not None:
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            elif folder.is_symlink() or folder.exists():
                folder.unlink()
            return
        bucket, client = location.bucket, _client(location)
        while found := list(islice(_versions(client, location), AT_ONCE)):  # from the beginning: the pages have changed
            objects = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in found]
            answer = client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            if refused := answer.get("Errors"):
                raise OSError(f"{refused[0]['Code']}: {refused[0]['Key']} and {len(refused) - 1} others")
        for upload in _unfinished(client, location):
            client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def paths_below(location: Location, others: Callable[[str], bool]) -> Iterator[str]:
    """Paths of all files and folders, relative to the location, but for folders that are others' and all below them; on
    S3 those of old versions, of deleted objects and of unfinished uploads too."""
    with storage_errors(location.url):
        if (folder := location.local) is not None:
            for parent, folders, files in os.walk(folder):
                inside = Path(parent).relative_to(folder)
                folders[:] = [name for name in folders if not others(str(inside / name))]
                yield from (str(inside / name) for name in (*folders, *files))
            return
        yield from _keys_below(_client(location), location, others)


def _keys_below(client: Any, location: Location, others: Callable[[str], bool]) -> Iterator[str]:
    """Folder by folder, so that those of others, where almost all objects are, are not listed."""
    root = _prefix(location)
    todo = [root]
    while todo:
        prefix = todo.pop()
        arguments = {"Bucket": location.bucket, "Prefix": prefix, "Delimiter": "/"}
        for call in ("list_object_versions", "list_multipart_uploads"):
            for page in _pages(client, call, **arguments):
                for kind in ("Versions", "DeleteMarkers", "Uploads"):
                    yield from (str(entry["Key"]).removeprefix(root) for entry in page.get(kind, []))
                for common in page.get("CommonPrefixes", []):
                    inside = str(common["Prefix"]).removeprefix(root).rstrip("/")
                    if not others(inside) and common["Prefix"] not in todo:
                        yield inside
                        todo.append(common["Prefix"])


def _entries(location: Location) -> Iterator[tuple[str, int]]:
    with storage_errors(location.url):
        if (folder := location.local) is not None:
            for parent, _, files in os.walk(folder):
                for name in files:
                    path = Path(parent, name)
                    yield str(path), path.lstat().st_size
            return
        for entry in _versions(_client(location), location):
            yield entry["Key"], int(entry.get("Size", 0))


def _client(location: Location) -> Any:
    import botocore.session  # type: ignore[import-untyped]

    login = location.credentials()
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=location.endpoint,
        region_name=location.region or REGION,
        aws_access_key_id=login.key,
        aws_secret_access_key=login.secret,
        aws_session_token=login.token,
    )


def _prefix(location: Location) -> str:
    return f"{location.prefix}/" if location.prefix else ""


def _versions(client: Any, location: Location) -> Iterator[dict[str, Any]]:
    """Every version of every object, and the marks of deleted ones."""
    for page in _pages(client, "list_object_versions", Bucket=location.bucket, Prefix=_prefix(location)):
        yield from page.get("Versions", [])
        yield from page.get("DeleteMarkers", [])


def _unfinished(client: Any, location: Location) -> Iterator[dict[str, Any]]:
    for page in _pages(client, "list_multipart_uploads", Bucket=location.bucket, Prefix=_prefix(location)):
        yield from page.get("Uploads", [])


def _pages(client: Any, call: str, **arguments: str | None) -> Iterator[dict[str, Any]]:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    try:
        yield from client.get_paginator(call).paginate(**arguments)
    except ClientError as error:
        if code_of(error) != "NoSuchBucket":
            raise
