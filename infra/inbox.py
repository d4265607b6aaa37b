"""Where files arrive by themselves: a folder or a bucket, laid out as `tenant/use_case/purpose/name`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.lake.paths import is_inside
from infra.settings import Settings
from tasks.domain.errors import InvalidDefinition
from tasks.domain.names import Purpose, TenantId, UseCaseId
from tasks.retention import StoredFile

REJECTED = "rejected"
"""Folder of files that could not be admitted, each with its reason in a file of the same name and `.txt`."""

_PLACE: TypeAdapter[tuple[str, str, Purpose]] = TypeAdapter(tuple[TenantId, UseCaseId, Purpose])


class Arrival(NamedTuple):
    """A file of the inbox as it was found: whose it is, a local copy that keeps its name (None: the file is gone), and
    what tells it from a later one under the same name."""

    place: Place
    file: Path | None
    stamp: str | None


class Place(NamedTuple):
    """Whose file it is, and what for: its folders say so."""

    tenant: str
    use_case: str
    purpose: Purpose


def place_of(path: str) -> Place:
    """The place that a path of the inbox names. Raises `InvalidDefinition`."""
    *folders, name = path.split("/")
    try:
        if not name or name in {".", ".."} or "\\" in path or "\0" in path:
            raise ValueError("no file name")
        return Place(*_PLACE.validate_python(tuple(folders)))
    except (ValidationError, ValueError):
        raise InvalidDefinition(
            "this is not a place in the inbox",
            expected="tenant/use_case/purpose/name, the purpose being history, scoring or actuals",
            found=path[:200],
        ) from None


@dataclass(frozen=True)
class Inbox:
    """The inbox, whose paths cannot leave it."""

    files: LakeFiles

    @contextmanager
    def local(self, path: str) -> Iterator[Arrival]:
        """The file, as long as the block lasts. Raises `InvalidDefinition` for a path that is no place."""
        place = place_of(path)
        stamp = self.files.stamp(path)
        if stamp is None:
            yield Arrival(place, None, None)
            return
        with self.files.local(path) as found, tempfile.TemporaryDirectory() as folder:
            named = Path(folder) / path.rpartition("/")[2]
            named.symlink_to(found)
            yield Arrival(place, named, stamp)

    def remove(self, path: str, stamp: str | None) -> None:
        """Takes an admitted file out; its content is among the uploads. One that came in its place stays."""
        if self.files.stamp(path) == stamp:
            self.files.delete(path)

    def refuse(self, path: str, reason: str, stamp: str | None, *, keep: bool = True) -> None:
        """Moves a file to `rejected/`, with the reason beside it; without `keep`, only the reason stays. One that came
        in its place stays, and is judged by itself; without a stamp, it is the path that is refused."""
        if is_inside(path) and self.files.exists(path) and stamp in (None, self.files.stamp(path)):
            if keep:
                self.files.move(path, f"{REJECTED}/{path}")
            else:
                self.files.delete(path)
            self.files.write(f"{REJECTED}/{path}.txt", f"{reason}\n".encode())

    def remove_refused(self, tenant: str, cutoff: datetime, dry_run: bool) -> list[StoredFile]:
        """Removes what of a tenant was refused before the cutoff, files and reasons; returns them."""
        folder = f"{REJECTED}/{tenant}"
        old = [file for file in self.files.stored(folder) if file.modified < cutoff]
        for file in old if not dry_run else ():
            self.files.delete(f"{folder}/{file.path}")
        return old


def open_inbox(settings: Settings) -> Inbox:
    """The inbox of these settings, with the lake's credentials."""
    return Inbox(LakeFiles(Location.of(settings.inbox_url, settings.lake_options)))
