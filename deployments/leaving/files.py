"""A tenant's files: its own folders everywhere, what names it in the platform's logs, and what still lies around."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from infra.database.search import Hit
from infra.inbox import REJECTED
from infra.lake.location import Location
from infra.lake.removal import paths_below, remove, size_of
from infra.mentions import Mentions
from infra.places import places, silo_url
from infra.settings import Settings
from tasks.domain.tenant import Isolation

LARGE_BYTES = 64 * 2**20
"""Files of the home folder that are larger are no logs, and are not read."""


@dataclass(frozen=True)
class TenantFiles:
    """All files of one tenant, found with the platform's own credentials. Every method may be repeated."""

    settings: Settings
    mentions: Mentions

    @property
    def tenant(self) -> str:
        return self.mentions.leaver.tenant

    def lake(self) -> list[Location]:
        """Its folders on the lake and among artifacts, in any isolation: it may have been moved."""
        shared = (place.url for place in places(self.settings, self.tenant, Isolation.POOL).all())
        return [self._operators(url) for url in (*shared, silo_url(self.settings, self.tenant))]

    def inbox(self) -> list[Location]:
        """What waits for it, and what was refused."""
        inbox = self._operators(self.settings.inbox_url)
        return [inbox.child(self.tenant), inbox.child(REJECTED, self.tenant)]

    def work(self, uploads: Sequence[str] = ()) -> list[Path]:
        """Folders and files on this machine: of pieces of work, of staged uploads, of the demo, of a worker."""
        home, found = self.settings.home, list[Path]()
        for folder in (home / "scratch" / "work", home / "scratch" / "incoming"):
            found += [path for path in folder.glob("*") if self.mentions.owns(path.name)]
        found += [path for each in uploads if (path := home / "scratch" / f"staging-{each}").exists()]
        found += [path for path in (home / "demo" / self.tenant,) if path.exists()]
        page = home / "demo" / "index.html"
        if page.is_file() and self.mentions.found_in(page.read_text(errors="replace")):
            found.append(page)  # the next demo renders it anew
        return found + list((home / "logs").glob(f"worker-tenant-{self.tenant}.log*"))

    @staticmethod
    def count(locations: list[Location]) -> dict[str, int]:
        """Files and bytes below these."""
        sizes = [size_of(location) for location in locations]
        return {"files": sum(size.files for size in sizes), "bytes": sum(size.bytes for size in sizes)}

    @staticmethod
    def remove(locations: list[Location]) -> None:
        """Removes them, and all versions of what lies there."""
        for location in locations:
            remove(location)

    def remove_work(self, uploads: list[str]) -> None:
        """Removes what `work` finds."""
        for path in self.work(uploads):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def redact_logs(self, pseudonym: str) -> int:
        """Puts a pseudonym in the place of what names the tenant in the platform's logs and reports on this machine;
        returns how many times it did."""
        return sum(redact(path, self.mentions, pseudonym) for path in self._logs())

    def count_log_lines(self) -> int:
        """Lines of those logs that name the tenant."""
        return sum(_lines(path, self.mentions) for path in self._logs())

    def search(self) -> list[Hit]:
        """Files, folders and lines of text that still name the tenant."""
        hits = []
        for what, url in (
            ("the lake", self.settings.lake_url),
            ("training artifacts", self.settings.training_artifacts_url),
            ("production artifacts", self.settings.production_artifacts_url),
            ("the inbox", self.settings.inbox_url),
        ):
            location = self._operators(url)
            paths = paths_below(location, self._is_others(location.root))
            if named := sum(1 for path in paths if self.mentions.names_path(path)):
                hits.append(Hit(f"{what}: paths below {url}", named))
        silo = self._operators(silo_url(self.settings, self.tenant))
        if left := size_of(silo).files:
            hits.append(Hit(f"the silo: files below {silo.url}", left))
        return hits + list(self._search_home())

    def _search_home(self) -> Iterator[Hit]:
        home = self.settings.home
        own = [place for url in self._urls() if (place := self._operators(url).local) is not None]
        apart = {home / "postgres", *own}  # one is searched as a database, the others as what they are
        for parent, folders, files in os.walk(home):
            here, inside = Path(parent), Path(parent).relative_to(home)
            others = self._is_others(str(here))
            folders[:] = [name for name in folders if here / name not in apart and not others(name)]
            for name in (*folders, *files):
                of_work = inside.parts[:1] == ("scratch",) and self.mentions.owns(name)
                if of_work or self.mentions.names_path(name):
                    yield Hit(f"the home folder: {here / name}", 1)
            for name in files:
                path = here / name
                if path.is_file() and path.stat().st_size <= LARGE_BYTES and (lines := _lines(path, self.mentions)):
                    yield Hit(f"the home folder: lines of {path}", lines)
        if lines := _lines(home / "postgres" / "server.log", self.mentions):
            yield Hit("the home folder: lines of postgres/server.log", lines)

    def _urls(self) -> tuple[str, ...]:
        known = self.settings
        return (
            known.lake_url, known.training_artifacts_url, known.production_artifacts_url, known.inbox_url,
            known.silo_url,
        )  # fmt: skip

    def _is_others(self, root: str) -> Callable[[str], bool]:
        """Tells of a folder below a root whether it is another tenant's."""
        return lambda inside: f"{root}/{inside}" in self._folders_of_others

    @cached_property
    def _folders_of_others(self) -> frozenset[str]:
        settings = self.settings
        inbox = settings.inbox_url.rstrip("/")
        shared = (
            f"{settings.lake_url.rstrip('/')}/tenants", settings.training_artifacts_url,
            settings.production_artifacts_url, inbox, f"{inbox}/{REJECTED}", (settings.home / "demo").as_uri(),
        )  # fmt: skip
        parents = [self._operators(url).root for url in shared]
        silos = (self._operators(silo_url(settings, other)).root for other in self.mentions.other_ids)
        return frozenset(f"{parent}/{other}" for parent in parents for other in self.mentions.other_ids).union(silos)

    def _operators(self, url: str) -> Location:
        return Location.of(url, self.settings.lake_options)

    def _logs(self) -> list[Path]:
        home = self.settings.home
        reports = (home / "reports" / "isolation").glob("*/*")  # who attacked whom
        found = [*(home / "logs").glob("*"), home / "postgres" / "server.log", *reports]
        return sorted(path for path in found if path.is_file() and not path.is_symlink())


def redact(path: Path, mentions: Mentions, pseudonym: str) -> int:
    """Overwrites what names the tenant in a log, byte for byte, with the beginning of its pseudonym and stars; returns
    how many times. The file keeps its length, so whoever writes to it may go on, and nothing is lost."""
    times = 0
    with path.open("r+b") as file:
        while found := list(mentions.in_logs.finditer(_contents(file))):
            for match in found:
                length = match.end() - match.start()
                file.seek(match.start())
                file.write(f"{pseudonym[:8]}{'*' * length}"[:length].encode())
            times += len(found)
    return times


def _contents(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _lines(path: Path, mentions: Mentions) -> int:
    """Lines that name the tenant."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return 0
    if not any(word.encode() in text for word in mentions.words):
        return 0
    return sum(1 for line in text.splitlines() if mentions.in_logs.search(line))
