"""The tenant's own folder: `Files` over fsspec, confined to its root."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.lake.location import Location, storage_errors
from tasks.domain.errors import NotFound, Permanent


class LakeFiles:
    """Implements `tasks.ports.Files`. Connects on first use and pickles without its connection."""

    def __init__(self, location: Location) -> None:
        self.location = location

    def __getstate__(self) -> dict[str, object]:
        return {"location": self.location}

    @cached_property
    def _fs(self) -> Any:
        return self.location.filesystem()

    def _full(self, path: str) -> str:
        """The full path. Raises `Permanent` for whatever could lead out of the root."""
        parts = path.split("/")
        if path.startswith("/") or "\\" in path or "\0" in path or any(p in {"", ".", ".."} for p in parts):
            raise Permanent(
                f"not a path inside the tenant's folder: {path!r}",
                expected="relative, / between names, no ..",
            )
        full = f"{self.location.root}/{path}"
        if (root := self.location.local) is not None:
            resolved, base = Path(full).resolve(), root.resolve()
            if not resolved.is_relative_to(base):
                raise Permanent(f"{path!r} leaves the tenant's folder through a link", found=str(resolved))
        return full

    def put(self, path: str, source: Path) -> None:
        """Copies a local file there; it appears whole or not at all."""
        full = self._full(path)
        with storage_errors(path):
            if self.location.local is not None:
                with _replacing(Path(full)) as temporary:
                    shutil.copyfile(source, temporary)
            else:
                self._fs.put_file(str(source), full)

    def write(self, path: str, data: bytes) -> None:
        """Writes bytes; the file appears whole or not at all."""
        full = self._full(path)
        with storage_errors(path):
            if self.location.local is not None:
                with _replacing(Path(full)) as temporary:
                    temporary.write_bytes(data)
            else:
                self._fs.pipe_file(full, data)

    def read(self, path: str) -> bytes:
        """The bytes. Raises `NotFound`."""
        full = self._full(path)
        try:
            with storage_errors(path):
                data: bytes = self._fs.cat_file(full)
                return data
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {path!r} in the tenant's folder", where=self.url(path)) from error

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A local path with the file's content (the file itself where the lake is local). Raises `NotFound`."""
        full = self._full(path)
        if not self.exists(path):
            raise NotFound(f"there is no file {path!r} in the tenant's folder", where=self.url(path))
        if self.location.local is not None:
            yield Path(full)
            return
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / Path(path).name
            with storage_errors(path):
                self._fs.get_file(full, str(copy))
            yield copy

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        full = self._full(path)
        with storage_errors(path):
            return bool(self._fs.exists(full))

    def list(self, folder: str) -> list[str]:
        """Paths of the files below a folder, sorted; unfinished writes are not among them."""
        full = self._full(folder)
        with storage_errors(folder):
            found = self._fs.find(full)
        root = self.location.root
        paths = [str(path)[len(root) + 1 :] for path in found]
        return sorted(path for path in paths if not path.endswith(".partial"))

    def delete(self, folder: str) -> None:
        """Removes a folder (or file) and all below it; nothing happens where there is none."""
        full = self._full(folder)
        with storage_errors(folder):
            if self._fs.exists(full):
                self._fs.rm(full, recursive=True)

    def url(self, path: str) -> str:
        """The full URL of a path, for people and for other tools."""
        self._full(path)
        return f"{self.location.url.rstrip('/')}/{path}"


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary file beside the target that takes its place at the end, or vanishes when something fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
