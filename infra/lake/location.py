"""Where a lake is and how to open it: one value that fsspec, pyarrow and deltalake can each be asked through."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tasks.domain.errors import InvalidDefinition, StorageUnavailable

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


@dataclass(frozen=True)
class Location:
    """A folder, `file:///…` or `s3://bucket/prefix`, with explicit credentials. Pickles; its repr hides secrets."""

    url: str
    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in {"file", "s3"}:
            raise InvalidDefinition(
                f"a lake cannot live at {self.url!r}",
                expected="file:///folder or s3://bucket/prefix",
                found=self.url,
            )

    def child(self, *names: str) -> Location:
        """The folder below this one."""
        return replace(self, url="/".join([self.url.rstrip("/"), *names]))

    @property
    def local(self) -> Path | None:
        """The folder as a local path, None on S3."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def filesystem(self) -> Any:
        """A new fsspec filesystem. Never a cached one: fsspec's cache would hand one tenant another's credentials."""
        import fsspec

        if self.local is not None:
            return fsspec.filesystem("file", skip_instance_cache=True)
        client = {"endpoint_url": self.endpoint, "region_name": self.region}
        return fsspec.filesystem(
            "s3",
            key=self.key,
            secret=self.secret,
            token=self.token,
            client_kwargs={name: value for name, value in client.items() if value},
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    @property
    def root(self) -> str:
        """The folder in fsspec's words: a path, or `bucket/prefix`."""
        if self.local is not None:
            return str(self.local)
        parts = urlsplit(self.url)
        return f"{parts.netloc}{parts.path}".rstrip("/")

    def delta_options(self) -> dict[str, str]:
        """Storage options for deltalake."""
        options = {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_SESSION_TOKEN": self.token,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region or "us-east-1",
            "AWS_ALLOW_HTTP": "true" if (self.endpoint or "").startswith("http://") else None,
        }
        return {} if self.local is not None else {k: v for k, v in options.items() if v}

    def arrow(self) -> Any:
        """The folder as a pyarrow filesystem, for the data files of a Delta table."""
        import pyarrow.fs as pafs

        if self.local is not None:
            return pafs.SubTreeFileSystem(str(self.local), pafs.LocalFileSystem(use_mmap=True))
        # Not deltalake's own handler: it keeps the interpreter locked while it sends.
        endpoint = urlsplit(self.endpoint) if self.endpoint else None
        remote = pafs.S3FileSystem(
            access_key=self.key,
            secret_key=self.secret,
            session_token=self.token,
            region=self.region or "us-east-1",
            endpoint_override=endpoint.netloc if endpoint else None,
            scheme=endpoint.scheme if endpoint else "https",
            request_timeout=60,
            connect_timeout=10,
        )
        return pafs.SubTreeFileSystem(self.root, remote)


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turns what the storage layers raise into `StorageUnavailable`; a full disk is called a full disk."""
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    from deltalake.exceptions import DeltaError

    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, DeltaError, BotoCoreError, ClientError) as error:
        text = str(error)
        if getattr(error, "errno", None) in FULL or "No space left" in text or "File too large" in text:
            raise StorageUnavailable(
                "disk full: the file could not be written",
                where=where,
                found=text,
                hint="free some space or raise the file size limit, then run again: nothing was published",
            ) from error
        raise StorageUnavailable(
            "the lake cannot be read or written",
            where=where,
            found=f"{type(error).__name__}: {text}",
            hint="check that the storage answers and that its credentials are valid, then run again",
        ) from error
