"""Moves the files of a folder to another place: copied, compared by digest, and only then removed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from infra.lake.files import store
from infra.lake.location import Kept, Location, storage_errors
from tasks.domain.errors import Tampered

CHUNK_BYTES = 1 << 20


class Copied(NamedTuple):
    """How much a folder holds."""

    files: int
    bytes: int


def copy_files(source: Location, target: Location, report: Callable[[Copied], None] = lambda _: None) -> Copied:
    """Makes the target hold what the source holds, and nothing else; what is there already is not copied again.

    Nobody may write to either meanwhile. Raises `Tampered` when a copy is not what it was copied from.
    """
    opened, copied = Kept(source, Location.filesystem), Kept(target, Location.filesystem)
    done = Copied(0, 0)
    with storage_errors(target.url):
        wanted, present = sizes(source), sizes(target)
        for path in sorted(present.keys() - wanted.keys()):
            copied.current().rm_file(f"{target.root}/{path}")
        for path, size in sorted(wanted.items()):
            source.check_file(path)
            here, there = opened.current(), copied.current()  # a large tenant outlasts one session
            digest = _digest(here, f"{source.root}/{path}")
            if present.get(path) != size or _digest(there, f"{target.root}/{path}") != digest:
                _copy(here, f"{source.root}/{path}", there, f"{target.root}/{path}", target)
                if (found := _digest(there, f"{target.root}/{path}")) != digest:
                    raise Tampered(
                        f"the copy of {path} differs from the file",
                        expected=f"sha256 {digest}",
                        found=found,
                        where=target.url,
                        hint="nothing was switched; see that nobody writes there, and run the command again",
                    )
            done = Copied(done.files + 1, done.bytes + size)
            report(done)
    return done


def remove_files(location: Location) -> Copied:
    """Removes a folder and all below it; says how much that was."""
    with storage_errors(location.url):
        found = sizes(location)
        store(location).delete(())
    return Copied(len(found), sum(found.values()))


def sizes(location: Location) -> dict[str, int]:
    """Bytes of every file below a folder, by path."""
    return {each.path: each.size for each in store(location).find(())}


def _digest(filesystem: Any, path: str) -> str:
    digest = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _copy(here: Any, source: str, there: Any, target: str, place: Location) -> None:
    if place.local is not None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        place.check_file(str(Path(target).parent.relative_to(place.local)))
    tags = place.tags(*target.removeprefix(f"{place.root}/").split("/"))
    with here.open(source, "rb") as reading, there.open(target, "wb", **tags) as writing:
        shutil.copyfileobj(reading, writing, CHUNK_BYTES)
