"""Local folders for pieces of work. What a killed process leaves is removed by the next one that works here."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch(root: Path, name: str) -> Iterator[Path]:
    """A new folder below `root`, removed at the end of the block.

    Its owner holds a lock on it, which goes with the process, however that ends: a folder without a lock is nobody's.
    Process ids would not do, because containers that share a volume do not share them.
    """
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.iterdir():
        with suppress(OSError), _locked(leftover, fcntl.LOCK_NB):
            shutil.rmtree(leftover, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
        with ExitStack() as stack:
            with suppress(FileNotFoundError):
                stack.enter_context(_locked(folder))
            if not folder.exists():
                continue  # until it was locked, another process could take it for a leftover
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(handle)
