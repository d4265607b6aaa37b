"""The files of one tenant in one registry, addressed by the URLs that its entries record.

An entry can be forged; where it leads is not believed. Only what lies below the tenant's own folder is opened, with
what opens that folder and nothing else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from infra.lake.bucket import Bucket
from infra.lake.files import store
from infra.lake.folder import Folder
from infra.lake.location import Location, storage_errors
from infra.lake.paths import names_in
from tasks.domain.errors import NotFound, Permanent, Tampered

AT_ONCE = 8
"""Files that are sent or fetched at once."""


@dataclass(frozen=True)
class Artifacts:
    """Folders below one place."""

    location: Location

    @cached_property
    def _store(self) -> Folder | Bucket:
        return store(self.location)

    def names(self, url: str) -> list[str]:
        """What a recorded URL names below the place. Raises `Tampered` for one that leads elsewhere."""
        local = self.location.local
        root = self.location.url.rstrip("/") if local is None else str(local)
        try:
            path = url if local is None else _path(url)
            if not path.startswith(f"{root}/") or "?" in url or "#" in url:
                raise Permanent("elsewhere")
            return names_in(path[len(root) + 1 :])
        except (Permanent, ValueError) as error:  # of an address that is none
            raise Tampered(
                "a registry entry names files that are not the tenant's",
                expected=f"an address below {self.location.url}",
                found=url[:300],
                hint="somebody has changed the entry; roll back to another release, or train again",
            ) from error

    @contextmanager
    def building(self, url: str) -> Iterator[Path]:
        """A local folder to fill, which is at `url` when the block ends; on a local disk it appears there whole. What
        an earlier, killed attempt left there is replaced."""
        names = self.names(url)
        if isinstance(self._store, Bucket):
            with tempfile.TemporaryDirectory() as scratch:
                yield Path(scratch)
                with storage_errors(url):
                    self._store.delete(names)
                    _send(self._store, Path(scratch), names)
            return
        partial = [*names[:-1], f".{names[-1]}.partial"]
        with storage_errors(url):
            self._store.delete(partial)
            folder = self.location.child(*partial)
            folder.make()
        assert folder.local is not None
        yield folder.local
        with storage_errors(url):
            self._store.delete(names)
            self._store.move(partial, names)

    @contextmanager
    def opened(self, url: str) -> Iterator[Path]:
        """A local folder with what is at `url`, not to be written to. Raises `Tampered`, `NotFound`."""
        with tempfile.TemporaryDirectory() as scratch:
            yield self.fetched(url, Path(scratch))

    def fetched(self, url: str, into: Path) -> Path:
        """The same, for as long as `into` lasts: the folder itself where that is local, else a copy in `into`."""
        names = self.names(url)
        if isinstance(self._store, Folder):
            return self._local(names, url)
        with storage_errors(url):
            _fetch(self._store, names, into)
        return into

    def remove(self, url: str) -> None:
        """Removes a folder. Nothing happens where there is none."""
        names = self.names(url)
        with storage_errors(url):
            self._store.delete(names)

    def _local(self, names: Sequence[str], url: str) -> Path:
        """A local folder without a link in it, or on the way to it."""
        folder = self.location.child(*names)
        folder.check()
        assert folder.local is not None
        if not folder.local.is_dir():
            raise NotFound("the files of a registry entry are not there", where=url)
        for top, folders, files in os.walk(folder.local):
            for name in (*folders, *files):
                if os.path.islink(os.path.join(top, name)):
                    raise Tampered("there is a link among the files of a registry entry", where=f"{top}/{name}")
        return folder.local


def _path(url: str) -> str:
    """The local path behind a `file://` URL or a bare path; nothing for any other."""
    parts = urlsplit(url)
    if parts.netloc or parts.scheme not in ("file", ""):
        return ""
    return unquote(parts.path) if parts.scheme else url


def _send(bucket: Bucket, folder: Path, names: Sequence[str]) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda path: bucket.put([*names, *path.relative_to(folder).parts], path), files))


def _fetch(bucket: Bucket, names: Sequence[str], into: Path) -> None:
    below = len("/".join(names)) + 1
    found = [names_in(each.path[below:]) for each in bucket.find(names)]
    if not found:
        raise NotFound("the files of a registry entry are not there", where="/".join(names))
    for each in found:
        into.joinpath(*each[:-1]).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda each: bucket.fetch([*names, *each], into.joinpath(*each)), found))
