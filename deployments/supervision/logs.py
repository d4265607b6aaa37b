"""`orchard logs`: what the parts wrote."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from deployments.supervision.configuration import log_path
from tasks.domain.errors import NotFound

POLL_S = 0.5
CHUNK = 64 * 1024


class LogFile(NamedTuple):
    """A part's log and how it ends."""

    part: str
    size_bytes: int
    last_line: str
    file: str


def log_files(home: Path) -> list[LogFile]:
    """The logs of all parts that ever ran here."""
    found = sorted((home / "logs").glob("*.log"))
    return [
        LogFile(path.stem, path.stat().st_size, next(iter(last_lines(path, 1)), ""), str(path))
        for path in found
        if not path.stem.startswith("orchard-")  # tracebacks of commands, a file each
    ]


def log_of(home: Path, part: str) -> Path:
    """The part's log. Raises `NotFound`."""
    known = [each.part for each in log_files(home)]
    if part not in known:
        raise NotFound(f"no log of a part {part!r}", expected=", ".join(known) or "none: nothing has run here yet")
    return log_path(home, part)


def last_lines(path: Path, count: int) -> list[str]:
    """The file's last lines, read from its end."""
    with path.open("rb") as file:
        position, data = file.seek(0, os.SEEK_END), b""
        while position and data.count(b"\n") <= count:
            step = min(CHUNK, position)
            position = file.seek(position - step)
            data = file.read(step) + data
    return list(deque(data.decode(errors="replace").splitlines(), count))


def following_lines(path: Path) -> Generator[str, None, None]:
    """Lines as they are written, for ever; goes on in the new file when supervisord starts one."""
    file = path.open(errors="replace")
    try:
        file.seek(0, os.SEEK_END)
        while True:
            if line := file.readline():
                yield line.rstrip("\n")
                continue
            time.sleep(POLL_S)
            try:
                found = path.stat()
            except FileNotFoundError:  # between the old file and the new one
                continue
            if found.st_ino != os.fstat(file.fileno()).st_ino or found.st_size < file.tell():
                file.close()
                file = path.open(errors="replace")
    finally:
        file.close()
