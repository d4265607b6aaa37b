"""Which releases stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tasks.domain.run import Release
from tasks.retention import AgingSpace, kept_releases
from tests.samples import sales_use_case

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CUTOFF = NOW - timedelta(days=90)


def release(version: int, status: str, days_old: int) -> Release:
    return Release(
        version=version, use_case="sales", training_run=version, dataset_version=0, upload_seq=1, status=status,
        source="file:///x", digest="", partitions=1, promoted=1, held=0, created_at=NOW - timedelta(days=days_old),
    )  # fmt: skip


@dataclass
class Space:
    """Knows releases and aliases, and is its own registry and records."""

    known: list[Release]
    aliases: dict[str, int] = field(default_factory=dict)

    @property
    def records(self) -> Any:
        return self

    registry = records

    def releases(self, use_case: str) -> list[Release]:
        return sorted(self.known, key=lambda each: -each.version)

    def find(self, use_case: str, alias: str) -> int | None:
        return self.aliases.get(alias)


CASES = {
    "champion and the one before it": ("1 retired 400, 2 retired 300, 3 champion 200", {}, {2, 3}),
    "replaced lately": ("1 retired 400, 2 retired 300, 3 retired 50, 4 champion 40", {}, {2, 3, 4}),
    "rolled back": ("1 retired 400, 2 champion 300, 3 retired 200", {}, {1, 2}),
    "rolled back lately": ("1 retired 400, 2 champion 300, 3 retired 50", {}, {1, 2, 3}),
    "waiting for approval": ("1 champion 400, 2 challenger 300, 3 challenger 200", {"challenger": 3}, {1, 3}),
    "never approved": ("1 challenger 400", {"challenger": 1}, {1}),
    "neither approved nor waiting": ("1 challenger 400", {}, set()),
    "alias and record at odds, after a crash": (
        "1 retired 400, 2 champion 300, 3 challenger 200",
        {"champion": 3},
        {1, 2, 3},
    ),
    "removed before": ("1 removed 400, 2 retired 300, 3 champion 200", {}, {2, 3}),
    "none": ("", {}, set()),
}


@pytest.mark.parametrize(("known", "aliases", "kept"), CASES.values(), ids=CASES)
def test_what_serves_waits_or_can_be_rolled_back_to_stays(known: str, aliases: dict[str, int], kept: set[int]) -> None:
    facts = [each.split() for each in known.split(",") if each]
    releases = [release(int(version), status, int(days)) for version, status, days in facts]
    space = cast(AgingSpace, Space(releases, aliases))
    assert {each.version for each in kept_releases(space, sales_use_case(), CUTOFF)} == kept
