"""What may name a file below a place, and whether a link lies on the way to it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tasks.domain.errors import Permanent, Tampered

MAX_NAME_BYTES, MAX_PATH_BYTES = 200, 900
"""Of 255 and 1,024 that file systems and stores take: the place's own path comes before, and `.partial` after."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DATA_FILE = re.compile(r"[a-z_]+=[A-Za-z0-9_-]+/[A-Za-z0-9_-][A-Za-z0-9_.-]*\.parquet")


class Found(NamedTuple):
    """A file: its path below a place, its size in bytes, when it was written in Unix seconds."""

    path: str
    size: int
    modified: float


def is_inside(path: str) -> bool:
    """Whether a path names something inside a place, to every file system: it has no `..`, no control characters, and
    nothing that Unicode takes for `/`, `.` or `\\`."""
    names = path.split("/")
    plain = path if path.isascii() else unicodedata.normalize("NFKC", path)
    return (
        not _CONTROL.search(path)
        and "\\" not in plain
        and plain.count("/") == path.count("/")
        and not any(name in {"", ".", ".."} for name in (*names, *plain.split("/")))
        and len(path.encode(errors="replace")) <= MAX_PATH_BYTES
        and all(len(name.encode()) <= MAX_NAME_BYTES for name in names)
    )


def names_in(path: str) -> list[str]:
    """The names that a path inside a place consists of. Raises `Permanent` for whatever could lead out of it."""
    if not is_inside(path):
        raise Permanent(
            f"not a path inside the tenant's folder: {path[:200]!r}",
            expected=f"relative, / between names of at most {MAX_NAME_BYTES} bytes, no .., no control characters",
        )
    return path.split("/")


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Raises `Permanent` when one of the names, each in the one before, is a link. What is not there is none."""
    for name in names:
        folder = folder / name
        if folder.is_symlink():
            raise link_found(folder)


def link_found(path: Path) -> Permanent:
    """What a link is refused with: it leaves the folder, or could be made to."""
    return Permanent(f"{path.name!r} leaves the tenant's folder through a link", where=str(path))


def refuse_links_in_log(table: Path) -> None:
    """The same for the log of a Delta table, and for every file of it."""
    refuse_links(table, ["_delta_log"])
    try:
        with os.scandir(table / "_delta_log") as entries:
            link = next((entry.name for entry in entries if entry.is_symlink()), None)
    except (FileNotFoundError, NotADirectoryError):
        return
    if link is not None:
        raise link_found(table / "_delta_log" / link)


def own_data_file(path: str) -> str:
    """The path of a data file as the log of its table names it. Raises `Tampered` for one that is not in the table's
    own folders: an absolute address, or a way out."""
    if not _DATA_FILE.fullmatch(path):
        raise Tampered(
            "the log of a table names a file that is not the table's own",
            expected="column=value/name.parquet",
            found=path[:200],
            hint="restore the table's log, or its folder",
        )
    return path
