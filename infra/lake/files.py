"""The tenant's own folder: `Files`, confined to its root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from infra.lake.bucket import Bucket
from infra.lake.folder import Folder
from infra.lake.location import Location, storage_errors
from infra.lake.paths import names_in
from tasks.domain.errors import NotFound
from tasks.retention import StoredFile


def store(location: Location) -> Folder | Bucket:
    """What keeps the files of a place; paths are lists of names there."""
    trusted = location.trusted()
    return Bucket(location) if trusted is None else Folder(*trusted)


def stored_files(location: Location) -> list[StoredFile]:
    """All files below a place, by path; none where there is no folder."""
    with storage_errors(location.url):
        found = store(location).find(())
    return sorted(StoredFile(each.path, each.size, datetime.fromtimestamp(each.modified, UTC)) for each in found)


class LakeFiles:
    """Implements `tasks.ports.Files`. Connects on first use and pickles without its connection."""

    def __init__(self, location: Location) -> None:
        self.location = location

    def __getstate__(self) -> dict[str, object]:
        return {"location": self.location}

    @cached_property
    def _store(self) -> Folder | Bucket:
        return store(self.location)

    def put(self, path: str, source: Path) -> None:
        """Copies a local file there; it appears whole or not at all."""
        names = names_in(path)
        with storage_errors(path):
            self._store.put(names, source)

    def write(self, path: str, data: bytes) -> None:
        """Writes bytes; the file appears whole or not at all."""
        names = names_in(path)
        with storage_errors(path):
            self._store.write(names, data)

    def read(self, path: str) -> bytes:
        """The bytes. Raises `NotFound`."""
        names = names_in(path)
        try:
            with storage_errors(path):
                return self._store.read(names)
        except FileNotFoundError as error:
            raise self._missing(path) from error

    @contextmanager
    def local(self, path: str, scratch: Path | None = None) -> Iterator[Path]:
        """A local path with the file's content: the file itself where the lake is local, else a copy, in a folder of
        `scratch` where that is given. Raises `NotFound`."""
        names = names_in(path)
        with ExitStack() as opened:
            try:
                with storage_errors(path):
                    found = opened.enter_context(self._store.local(names, scratch))
            except FileNotFoundError as error:
                raise self._missing(path) from error
            yield found

    def move(self, path: str, to: str) -> None:
        """Gives a file another path, in place of what was there."""
        names, target = names_in(path), names_in(to)
        with storage_errors(path):
            self._store.move(names, target)

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        names = names_in(path)
        with storage_errors(path):
            return self._store.exists(names)

    def stamp(self, path: str) -> str | None:
        """What tells a file from one that has taken its place: size, times, tag. None where there is none."""
        names = names_in(path)
        with storage_errors(path):
            return self._store.stamp(names)

    def stored(self, folder: str) -> list[StoredFile]:
        """All files below a folder, with size and time, by their paths there; none where there is no folder."""
        return stored_files(self.location.child(*names_in(folder)))

    def list(self, folder: str) -> list[str]:
        """Paths of the files below a folder, sorted; unfinished writes are not among them."""
        names = names_in(folder)
        with storage_errors(folder):
            found = self._store.find(names)
        return sorted(each.path for each in found if not each.path.endswith(".partial"))

    def delete(self, folder: str) -> None:
        """Removes a folder (or file) and all below it; nothing happens where there is none."""
        names = names_in(folder)
        with storage_errors(folder):
            self._store.delete(names)

    def url(self, path: str) -> str:
        """The full URL of a path, for people and for other tools."""
        names_in(path)
        return f"{self.location.url.rstrip('/')}/{path}"

    def _missing(self, path: str) -> NotFound:
        return NotFound(f"there is no file {path!r} in the tenant's folder", where=self.url(path))
