"""Files of a folder on S3. Nothing leads out of it but its own path: there are no links, and `..` is a name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.lake.location import Kept, Location
from infra.lake.paths import Found

DELETED_AT_ONCE = 16

Names = Sequence[str]


class Bucket:
    """A folder in a bucket, opened with the place's current credentials at each use."""

    def __init__(self, location: Location) -> None:
        self._location, self._root = location, location.root
        self._kept: Kept[Any] = Kept(location, Location.filesystem)

    @property
    def _fs(self) -> Any:
        return self._kept.current()

    def _key(self, names: Names) -> str:
        return "/".join((self._root, *names))

    def put(self, names: Names, source: Path) -> None:
        """Copies a local file there, which appears whole or not at all."""
        self._fs.put_file(str(source), self._key(names), **self._location.tags(*names))

    def write(self, names: Names, data: bytes) -> None:
        """Writes bytes, which appear whole or not at all."""
        self._fs.pipe_file(self._key(names), data, **self._location.tags(*names))

    def read(self, names: Names) -> bytes:
        """The bytes. Raises `FileNotFoundError`."""
        data: bytes = self._fs.cat_file(self._key(names))
        return data

    @contextmanager
    def local(self, names: Names, scratch: Path | None) -> Iterator[Path]:
        """A copy of the file, in a folder of `scratch` where that is given. Raises `FileNotFoundError`."""
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            copy = Path(folder) / names[-1]
            self.fetch(names, copy)
            yield copy

    def fetch(self, names: Names, target: Path) -> None:
        """Copies the file to a local path. Raises `FileNotFoundError`."""
        self._fs.get_file(self._key(names), str(target))

    def move(self, names: Names, to: Names) -> None:
        """Gives a file another path, in place of what was there."""
        tags = self._location.tags(*to)  # instead of the old ones, which a role may not read
        self._fs.cp_file(self._key(names), self._key(to), **tags, **({"TaggingDirective": "REPLACE"} if tags else {}))
        self._fs.rm_file(self._key(names))

    def exists(self, names: Names) -> bool:
        """Whether a file or folder is there."""
        return bool(self._fs.exists(self._key(names)))

    def stamp(self, names: Names) -> str | None:
        """What tells a file from one that has taken its place, None where there is none."""
        if (facts := self._info(names)) is None:
            return None
        return "/".join(str(facts.get(name)) for name in ("size", "ETag", "LastModified"))

    def find(self, names: Names) -> list[Found]:
        """The files below a folder, by their paths below the place's own; a file by its own path."""
        found = [each for each in self._below(names) if not each.path.endswith("/")]  # which stands for a folder
        if not found and names and (info := self._info(names)) is not None and info["type"] == "file":
            found = [Found("/".join(names), int(info["size"]), info["LastModified"].timestamp())]
        return found

    def delete(self, names: Names) -> None:
        """Removes a file, and all files below a folder; one by one, because s3fs is silent about those of a bulk
        request that the store refused."""
        keys = [f"{self._root}/{each.path}" for each in self._below(names)]
        if names:
            keys.append(self._key(names))  # nothing happens where there is none
        fs = self._fs
        with ThreadPoolExecutor(DELETED_AT_ONCE) as pool:
            list(pool.map(fs.rm_file, keys))

    def _below(self, names: Names) -> Iterator[Found]:
        """What is listed below a folder. Its own name is not looked up: it is no file, and not within what a role may
        read when it is the place's own."""
        bucket, _, root = self._root.partition("/")
        asked = {"Bucket": bucket, "Prefix": f"{self._key(names)}/".partition("/")[2]}
        while True:
            try:
                page = self._fs.call_s3("list_objects_v2", **asked)
            except FileNotFoundError:  # no such bucket
                return
            for each in page.get("Contents", []):
                path = each["Key"][len(root) :].removeprefix("/")
                yield Found(path, each["Size"], each["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _info(self, names: Names) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._fs.info(self._key(names))
        except FileNotFoundError:
            return None
        return info
