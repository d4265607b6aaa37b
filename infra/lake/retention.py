"""Old versions of a Delta table, removed for good: their part of the log, and the data files that nothing else needs.

Not Delta's own vacuum: that adds versions to the table, which would pass for new data, goes by the machine's clock, and
cannot say beforehand what it would free.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from infra.lake.files import LakeFiles, stored_files
from infra.lake.location import Location, storage_errors
from tasks.domain.errors import Tampered
from tasks.domain.retention import Removed
from tasks.retention import StoredFile

LOG = "_delta_log"
_IN_LOG = re.compile(r"(\d{20})\.(json|checkpoint|crc)\b.*")

REMOVED_AT_ONCE = 16


def remove_stored(location: Location, paths: Iterable[str]) -> None:
    """Removes files below a folder, several at once."""
    files = LakeFiles(location)
    with ThreadPoolExecutor(REMOVED_AT_ONCE) as pool:
        list(pool.map(files.delete, paths))


@dataclass(frozen=True)
class History:
    """The versions of a Delta table, as its log has them now."""

    location: Location

    @cached_property
    def _stored(self) -> LakeFiles:
        return LakeFiles(self.location)

    @cached_property
    def _log(self) -> list[tuple[int, str, StoredFile]]:
        """(version, kind, file) of the log's files, by version; the kind is json, checkpoint or crc."""
        files = stored_files(self.location.child(LOG))
        found = ((_IN_LOG.fullmatch(file.path), file._replace(path=f"{LOG}/{file.path}")) for file in files)
        return [(int(match[1]), match[2], file) for match, file in found if match]

    @cached_property
    def commits(self) -> dict[int, StoredFile]:
        """The commit of every version that has one, by version."""
        return {version: file for version, kind, file in self._log if kind == "json"}

    @cached_property
    def oldest(self) -> int | None:
        """The oldest version that can be read: the first one, or the first checkpoint with all commits after it."""
        if not self.commits:
            return None
        first = max(self.commits)
        while first - 1 in self.commits:
            first -= 1
        checkpoints = [version for version, kind, _ in self._log if kind == "checkpoint" and version >= first - 1]
        return 0 if first == 0 else min(checkpoints, default=None)

    def at(self, moment: datetime) -> int | None:
        """The version that was current at that moment or, if all are younger, the oldest. None without a table."""
        current = self.oldest
        for version in sorted(version for version in self.commits if current is not None and version >= current):
            if self._committed_at(version) > moment:
                break
            current = version
        return current

    def forget(self, before: int, keep: Callable[[str], bool], what: str, dry_run: bool) -> list[Removed]:
        """Removes what only versions before that one need; it and all later ones stay readable. Cut off, it goes on
        with the next call. Nobody may write meanwhile: a data file that is in no version counts as left over, unless
        `keep` says of its path that it is not.
        """
        old = [file for version, _, file in self._log if version < before]
        data = [file for file in stored_files(self.location) if not file.path.startswith(f"{LOG}/")]
        self._check({file.path for file in data})
        needed = self._needed_since(before)
        unneeded = [file for file in data if file.path not in needed and not keep(file.path)]
        versions = sum(version < before for version in self.commits)
        if not dry_run:
            if old:
                self._checkpoint(before)
                remove_stored(self.location, [file.path for file in old])
            remove_stored(self.location, [file.path for file in unneeded])
        return [
            Removed(f"{what} versions", versions, sum(file.size_bytes for file in old)),
            Removed(f"{what} files", len(unneeded), sum(file.size_bytes for file in unneeded)),
        ]

    def _checkpoint(self, version: int) -> None:
        """Sees that a version can be read without the log before it."""
        if not any(kind == "checkpoint" and found == version for found, kind, _ in self._log):
            with storage_errors(self.location.url):
                self._opened(version).create_checkpoint()

    def _check(self, present: set[str]) -> None:
        """Raises `Tampered` when the current version lacks a file: then what is there is not what the log tells, and
        what the log does not name must not be taken for left over."""
        if missing := self._files_of(max(self.commits)) - present:
            raise Tampered(
                "the table lacks files that its current version consists of",
                expected=f"{len(missing)} more, such as {min(missing)}",
                where=self.location.url,
                hint="restore the table from a backup; nothing of it is removed meanwhile",
            )

    def _needed_since(self, version: int) -> set[str]:
        """Paths of the data files that a version, or any later one, consists of."""
        needed = self._files_of(version)
        for later in self.commits:
            if later > version:
                needed.update(unquote(action["add"]["path"]) for action in self._actions(later) if "add" in action)
        return needed

    def _files_of(self, version: int) -> set[str]:
        with storage_errors(self.location.url):
            actions = pa.table(self._opened(version).get_add_actions(flatten=True))
        return {unquote(path) for path in actions["path"].to_pylist()} if len(actions) else set()

    def _opened(self, version: int) -> Any:
        from deltalake import DeltaTable

        self.location.check_table()
        return DeltaTable(self.location.url, version=version, storage_options=self.location.delta_options())

    def _committed_at(self, version: int) -> datetime:
        for action in self._actions(version):
            if "commitInfo" in action:
                return datetime.fromtimestamp(action["commitInfo"]["timestamp"] / 1000, UTC)
        return self.commits[version].modified

    def _actions(self, version: int) -> Iterator[dict[str, Any]]:
        text = self._stored.read(self.commits[version].path)
        return (json.loads(line) for line in text.splitlines())
