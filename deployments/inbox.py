"""Watches the inbox: `python -m deployments.inbox`. A fully written file becomes an event, whose trigger admits it.

Files lie at `tenant/use_case/purpose/name`. In a folder, one is complete when it has not changed for a second; in a
bucket, objects are complete when they appear, and notifications tell of most of them, so the bucket is only swept for
those whose event got lost. A file that still lies there a minute after its event is announced again: admission takes
away what it admits, and moves to `rejected/` what it refuses.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from infra.inbox import REJECTED
from infra.lake.files import store
from infra.lake.location import Location
from infra.lake.paths import is_inside
from infra.settings import Settings, load_settings

logger = logging.getLogger(__name__)

DEPTH = 4  # tenant, use case, purpose, name
UNFINISHED = (".part", ".tmp", ".partial", ".crdownload")
"""Endings that programs give to files that they still write."""

LOOK_S = 1.0
SETTLED_S = 1.0
AGAIN_S = 60.0
SWEEP_S = 60.0

MOST_UNDER_WAY, MOST_SWEPT = 20, 50
"""So many announced files may wait for their admission in a folder, and so many objects are announced by a sweep: more
would only keep other runs of the platform waiting, dispatch among them, and be announced again and again meanwhile."""


class Stamp(NamedTuple):
    """What changes while a file is written; times are in Unix seconds."""

    size_bytes: int
    modified: float


class Sighting(NamedTuple):
    """A file as it was seen: since when it looks like that, and when it was last announced."""

    stamp: Stamp
    since: float
    announced: float | None = None


Listing = Mapping[str, Stamp]
Seen = dict[str, Sighting]


def look(seen: Seen, listing: Listing, now: float) -> tuple[list[str], Seen]:
    """The files to announce now, and what was seen, for the next look; `now` is in monotonic seconds.

    A file is announced when it looks as it did at least a second ago, and again each minute that it still lies there.
    One that has changed since is a new one. Only so many are under way at once; those that were never announced go
    first, of each tenant the oldest.
    """
    kept, new, again = {}, [], []
    for path, stamp in sorted(listing.items(), key=lambda item: (item[1].modified, item[0])):
        sighting = seen.get(path)
        if sighting is None or sighting.stamp != stamp:
            sighting = Sighting(stamp, now)
        kept[path] = sighting
        if sighting.announced is None and now >= sighting.since + SETTLED_S:
            new.append(path)
        elif sighting.announced is not None and now >= sighting.announced + AGAIN_S:
            again.append(path)
    under_way = sum(sighting.announced is not None for sighting in kept.values()) - len(again)
    announce = [*in_turns(new), *in_turns(again)][: max(0, MOST_UNDER_WAY - under_way)]
    for path in announce:
        kept[path] = kept[path]._replace(announced=now)
    return announce, kept


def in_turns(paths: Sequence[str]) -> list[str]:
    """Every tenant's first path, then every tenant's second, and so on."""
    places: Counter[str] = Counter()
    ranked = []
    for path in paths:
        tenant = path.partition("/")[0]
        ranked.append((places[tenant], path))
        places[tenant] += 1
    return [path for _, path in sorted(ranked, key=lambda item: item[0])]


def overdue(listing: Listing, now: float) -> list[str]:
    """Objects that have lain in the bucket for a minute, oldest first; `now` is in Unix seconds."""
    old = [(stamp.modified, path) for path, stamp in listing.items() if now - stamp.modified >= AGAIN_S]
    return [path for _, path in sorted(old)]


def is_candidate(path: str) -> bool:
    """Whether a path below the inbox may be a file to admit: deep enough, not refused before, not hidden, not of a
    program that still writes it, and not named so that nobody could say what it is."""
    names = path.split("/")
    return (
        len(names) == DEPTH
        and REJECTED not in names[:-1]
        and not any(name.startswith(".") for name in names)
        and not names[-1].lower().endswith(UNFINISHED)
        and is_inside(path)
    )


def folder_listing(root: Path) -> Listing:
    """The candidates in a folder. Symbolic links are ignored: they could lead out of it."""
    return dict(_files(root, ""))


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, Stamp]]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        _tell_closed(folder)
        return
    for entry in entries:
        path = f"{prefix}{entry.name}"
        try:
            if entry.is_dir(follow_symlinks=False):
                if path.count("/") < DEPTH - 1 and path != REJECTED:
                    yield from _files(folder / entry.name, f"{path}/")
            elif entry.is_file(follow_symlinks=False) and is_candidate(path):
                found = entry.stat(follow_symlinks=False)
                yield path, Stamp(found.st_size, found.st_mtime)
        except FileNotFoundError:  # admitted while we looked
            continue


@cache
def _tell_closed(folder: Path) -> None:
    """Says once that a folder may not be read. It keeps no other folder's files waiting."""
    logger.warning("%s may not be read: grant the user of this process read and execute rights", folder)


def bucket_listing(location: Location) -> Listing:
    """The candidates below a prefix of a bucket."""
    found = store(location).find(())
    return {each.path: Stamp(each.size, each.modified) for each in found if is_candidate(each.path)}


def watch(settings: Settings, announce: Callable[[str], None], stop: threading.Event) -> None:
    """Looks and announces until it is told to stop. What goes wrong is logged, and tried again at the next look."""
    location = Location.of(settings.inbox_url, settings.lake_options)
    root, seen = location.local, Seen()
    while not stop.is_set():
        try:
            if root is not None:
                root.mkdir(parents=True, exist_ok=True)
                paths, seen = look(seen, folder_listing(root), time.monotonic())
            else:
                paths = in_turns(overdue(bucket_listing(location), time.time()))[:MOST_SWEPT]
            for path in paths:
                logger.info("announcing %s", path)
                announce(path)
        except Exception:  # storage or Prefect is away: a watcher that ends would watch nothing
            logger.exception("the inbox could not be looked through")
        stop.wait(LOOK_S if root is not None else SWEEP_S)


def main() -> None:
    """Watches until it is told to stop; events that are on their way are sent before it ends."""
    from flows.events import announce_upload

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = load_settings()
    logger.info("watching %s", settings.inbox_url)
    watch(settings, announce_upload, stop)


if __name__ == "__main__":
    main()
