"""Files of a local folder that no link leads out of.

Every folder on the way is opened by its name in the folder before, without following a link, and the file by its name
in the last one: a link that is planted between a check and a use finds no gap. What remains is named at `Folder.local`.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from infra.lake.paths import Found, link_found

PRIVATE = 0o700
COPY_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC

Names = Sequence[str]


class Folder:
    """A folder below a trusted one, which may itself be reached through links; `inside` are the names between."""

    def __init__(self, trusted: Path, inside: Names) -> None:
        self._trusted, self._inside = trusted, tuple(inside)

    def put(self, names: Names, source: Path) -> None:
        """Copies a local file there, which appears whole or not at all."""
        with source.open("rb") as original, self._replacing(names) as copy:
            shutil.copyfileobj(original, copy, COPY_BYTES)

    def write(self, names: Names, data: bytes) -> None:
        """Writes bytes, which appear whole or not at all."""
        with self._replacing(names) as file:
            file.write(data)

    def read(self, names: Names) -> bytes:
        """The bytes. Raises `FileNotFoundError`."""
        if not self.exists(names):
            raise FileNotFoundError(self._path(names))
        with self._folder(names[:-1]) as folder, open(self._open(folder, names, os.O_RDONLY), "rb") as file:
            return file.read()

    @contextmanager
    def local(self, names: Names, _: Path | None) -> Iterator[Path]:
        """The file itself, by its path: whoever opens that follows a link which was planted after this look at it.
        Raises `FileNotFoundError`."""
        if not self.exists(names):
            raise FileNotFoundError(self._path(names))
        yield self._path(names)

    def move(self, names: Names, to: Names) -> None:
        """Gives a file another path, in place of what was there."""
        with self._folder(names[:-1]) as source, self._folder(to[:-1], make=True) as target:
            os.replace(names[-1], to[-1], src_dir_fd=source, dst_dir_fd=target)

    def exists(self, names: Names) -> bool:
        """Whether a file or folder is there."""
        return self._facts(names) is not None

    def stamp(self, names: Names) -> str | None:
        """What tells a file from one that has taken its place, None where there is none."""
        facts = self._facts(names)
        return None if facts is None else f"{facts.st_size}/{facts.st_mtime_ns}/{facts.st_ino}"

    def find(self, names: Names) -> list[Found]:
        """All that is not a folder, below a folder, by paths below the place's own; links are found and not followed.
        A file is found by its own path."""
        found = []
        try:
            with self._folder(names) as folder:
                for top, folders, files, inner in os.fwalk(".", dir_fd=folder):
                    here = (*names, *(part for part in top.split("/") if part != "."))
                    for name in (*files, *(each for each in folders if _is_link(inner, each))):
                        if (facts := _facts(inner, name)) is not None:
                            found.append(Found("/".join((*here, name)), facts.st_size, facts.st_mtime))
        except (FileNotFoundError, NotADirectoryError):
            if names and (facts := self._facts(names)) is not None:
                found.append(Found("/".join(names), facts.st_size, facts.st_mtime))
        return found

    def delete(self, names: Names) -> None:
        """Removes a file, or a folder and all below it. A link goes, and what it points to stays."""
        *way, name = (*self._inside, *names)
        try:
            with self._way(way) as folder:
                if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    shutil.rmtree(name, dir_fd=folder)
                else:
                    os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return

    def make(self) -> None:
        """Makes the folder itself, open to nobody else."""
        with self._folder((), make=True) as folder:
            os.fchmod(folder, PRIVATE)

    def _path(self, names: Names) -> Path:
        return self._trusted.joinpath(*self._inside, *names)

    def _folder(self, names: Names, *, make: bool = False) -> AbstractContextManager[int]:
        """A descriptor of the folder of that path. Raises `Permanent` for a link on the way, `FileNotFoundError`."""
        return self._way((*self._inside, *names), make=make)

    @contextmanager
    def _way(self, names: Names, *, make: bool = False) -> Iterator[int]:
        if make:
            self._trusted.mkdir(parents=True, exist_ok=True)
        here = os.open(self._trusted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            way: list[str] = []
            for name in names:
                way.append(name)
                if make:
                    _make(here, name)
                try:
                    inner = os.open(name, _FOLDER, dir_fd=here)
                except OSError as error:
                    if _is_link(here, name):
                        raise link_found(self._trusted.joinpath(*way)) from error
                    raise
                os.close(here)
                here = inner
            yield here
        finally:
            os.close(here)

    def _open(self, folder: int, names: Names, flags: int) -> int:
        try:
            return os.open(names[-1], flags | _FILE, 0o600, dir_fd=folder)
        except OSError as error:
            if _is_link(folder, names[-1]):
                raise link_found(self._path(names)) from error
            raise

    def _facts(self, names: Names) -> os.stat_result | None:
        try:
            with self._folder(names[:-1]) as folder:
                facts = _facts(folder, names[-1])
        except (FileNotFoundError, NotADirectoryError):
            return None
        if facts is not None and stat.S_ISLNK(facts.st_mode):
            raise link_found(self._path(names))
        return facts

    @contextmanager
    def _replacing(self, names: Names) -> Iterator[BinaryIO]:
        """A new file beside the named one that takes its place at the end, or vanishes when something fails."""
        with self._folder(names[:-1], make=True) as folder:
            temporary = f".{names[-1]}.{uuid.uuid4().hex[:8]}.partial"
            made = self._open(folder, [temporary], os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                with open(made, "wb") as file:
                    yield file
                os.replace(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise


def _make(folder: int, name: str) -> None:
    try:
        os.mkdir(name, PRIVATE, dir_fd=folder)
    except FileExistsError:
        return


def _facts(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_link(folder: int, name: str) -> bool:
    facts = _facts(folder, name)
    return facts is not None and stat.S_ISLNK(facts.st_mode)
