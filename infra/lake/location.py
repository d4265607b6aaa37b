"""Where a lake is and how to open it: one value that fsspec, pyarrow and deltalake can each be asked through."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit

from infra.isolation.aws import REGION
from infra.isolation.credentials import Credentials, of_role
from infra.lake.folder import Folder
from infra.lake.paths import refuse_links, refuse_links_in_log
from infra.lake.tagging import Tagging
from infra.settings import LakeOptions
from tasks.domain.errors import InvalidDefinition, StorageUnavailable

Handle = TypeVar("Handle")

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


@dataclass(frozen=True)
class Location:
    """A folder, `file:///…` or `s3://bucket/prefix`, with explicit credentials. Pickles; its repr hides secrets.

    Attributes:
        key, secret, token: credentials of the place's own; a tenant's place has none where it has a role.
        role: name of the role that is assumed to open it; its credentials are short-lived, and asked for at each use.
        kms_key: ARN of the KMS key that what is written is encrypted with; None: the bucket's default.
        base: URL of the folder that the settings name. Below it no link is followed; where it is itself is theirs.
        tagging: what objects that are written there are tagged with, on S3.
    """

    url: str
    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None
    role: str | None = None
    kms_key: str | None = None
    base: str | None = None
    tagging: Tagging | None = None

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in {"file", "s3"} or "?" in self.url or "#" in self.url:
            raise InvalidDefinition(
                f"a lake cannot live at {self.url!r}",
                expected="file:///folder or s3://bucket/prefix, without ? and #",
                found=self.url,
            )

    @classmethod
    def of(cls, url: str, options: LakeOptions) -> Location:
        """A place that the settings name, reached as they say."""
        key, secret, token = (
            each.get_secret_value() if each is not None else None
            for each in (options.key, options.secret, options.token)
        )
        return cls(url, key, secret, token, options.endpoint_url, options.region)

    def child(self, *names: str) -> Location:
        """The folder below this one."""
        return replace(self, url="/".join([self.url.rstrip("/"), *names]), base=self.base or self.url)

    def opened_by(self, role: str, kms_key: str | None) -> Location:
        """The same folder, for whoever assumes that role; the credentials that were there are gone."""
        return replace(self, key=None, secret=None, token=None, role=role, kms_key=kms_key)

    @property
    def local(self) -> Path | None:
        """The folder as a local path, None on S3."""
        return _local(self.url)

    @property
    def bucket(self) -> str | None:
        """The bucket, None for a local folder."""
        parts = urlsplit(self.url)
        return parts.netloc if parts.scheme == "s3" else None

    @property
    def prefix(self) -> str:
        """The folder within its bucket, without slashes at its ends."""
        return urlsplit(self.url).path.strip("/")

    def trusted(self) -> tuple[Path, tuple[str, ...]] | None:
        """A local folder as the part that the settings name and the names below it, which may not be links."""
        if (local := self.local) is None:
            return None
        base = _local(self.base or self.url)
        assert base is not None
        return base, local.relative_to(base).parts

    def check(self) -> None:
        """Raises `Permanent` when a local folder is reached through a link below its base."""
        if (trusted := self.trusted()) is not None:
            refuse_links(*trusted)

    def check_table(self) -> None:
        """The same for a Delta table: neither its folder nor its log may be one, nor hold one."""
        self.check()
        if (local := self.local) is not None:
            refuse_links_in_log(local)

    def check_file(self, path: str) -> None:
        """The same for a file below this folder, and the folders on the way to it."""
        if (local := self.local) is not None:
            refuse_links(local, path.split("/"))

    def make(self) -> None:
        """Makes a local folder, those below its base open to nobody else; buckets have no folders."""
        if (trusted := self.trusted()) is not None:
            Folder(*trusted).make()

    def credentials(self) -> Credentials:
        """What to sign requests with, now. Raises `StorageUnavailable` when its role cannot be assumed."""
        if self.role is not None:
            return of_role(self.role, self.endpoint)
        return Credentials(self.key, self.secret, self.token)

    def filesystem(self) -> Any:
        """A new fsspec filesystem. Never a cached one: fsspec's cache would hand one tenant another's credentials."""
        import fsspec

        if self.local is not None:
            return fsspec.filesystem("file", skip_instance_cache=True)
        client = {"endpoint_url": self.endpoint, "region_name": self.region}
        current = self.credentials()
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key} if self.kms_key else {}
        return fsspec.filesystem(
            "s3",
            key=current.key,
            secret=current.secret,
            token=current.token,
            client_kwargs={name: value for name, value in client.items() if value},
            s3_additional_kwargs=encryption,
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    def tags(self, *names: str) -> dict[str, str]:
        """What a request that writes the file of that path says about its tags; nothing where there are none."""
        if self.tagging is None:
            return {}
        return {"Tagging": self.tagging.of("/".join([self.url.rstrip("/"), *names]))}

    @property
    def root(self) -> str:
        """The folder in fsspec's words: a path, or `bucket/prefix`."""
        if self.local is not None:
            return str(self.local)
        parts = urlsplit(self.url)
        return f"{parts.netloc}{parts.path}".rstrip("/")

    def delta_options(self) -> dict[str, str]:
        """Storage options for deltalake, which keeps them as they are: what lasts longer than a call asks again."""
        if self.local is not None:
            return {}
        current = self.credentials()
        options = {
            "AWS_ACCESS_KEY_ID": current.key,
            "AWS_SECRET_ACCESS_KEY": current.secret,
            "AWS_SESSION_TOKEN": current.token,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region or REGION,
            "AWS_ALLOW_HTTP": "true" if (self.endpoint or "").startswith("http://") else None,
            "AWS_SERVER_SIDE_ENCRYPTION": "aws:kms" if self.kms_key else None,
            "AWS_SSE_KMS_KEY_ID": self.kms_key,
        }
        return {name: value for name, value in options.items() if value}

    def arrow(self) -> Any:
        """The folder as a pyarrow filesystem, for the data files of a Delta table."""
        import pyarrow.fs as pafs

        if self.local is not None:
            return pafs.SubTreeFileSystem(str(self.local), pafs.LocalFileSystem(use_mmap=True))
        # Not deltalake's own handler: it keeps the interpreter locked while it sends. (It has no word for a KMS key:
        # the bucket's default encryption has.)
        endpoint = urlsplit(self.endpoint) if self.endpoint else None
        current = self.credentials()
        remote = pafs.S3FileSystem(
            access_key=current.key,
            secret_key=current.secret,
            session_token=current.token,
            region=self.region or REGION,
            endpoint_override=endpoint.netloc if endpoint else None,
            scheme=endpoint.scheme if endpoint else "https",
            request_timeout=60,
            connect_timeout=10,
        )
        return pafs.SubTreeFileSystem(self.root, remote)


def _local(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


class Kept(Generic[Handle]):
    """A handle on a place, made on first use and made anew when the place's credentials are others by then.

    It pickles without the handle, and is nobody else's: libraries that share handles by address would hand one tenant's
    credentials to another.
    """

    def __init__(self, location: Location, make: Callable[[Location], Handle]) -> None:
        self._location, self._make = location, make
        self._kept: tuple[Credentials, Handle] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"_location": self._location, "_make": self._make, "_kept": None}

    def current(self) -> Handle:
        """The handle. Raises `Permanent` where a link lies on the way to a local place."""
        self._location.check()
        credentials = self._location.credentials()
        kept = self._kept
        if kept is None or kept[0] != credentials:
            kept = self._kept = credentials, self._make(self._location)
        return kept[1]


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
