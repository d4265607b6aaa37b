"""What operators and upload hooks do outside a run: admit a file, decide which release serves, look at quarantine."""

from __future__ import annotations

from pathlib import Path

from tasks.domain.errors import NotFound
from tasks.domain.names import Purpose
from tasks.domain.run import Upload
from tasks.ingestion import admission, quarantine
from tasks.ports import Space
from tasks.promotion import release


def admit(space: Space, use_case: str, purpose: Purpose, path: Path) -> tuple[Upload, bool]:
    """Stores and records a file; returns the upload, and whether it is new."""
    return admission.admit(space, use_case, purpose, path)


def approve(space: Space, use_case: str) -> int:
    """Lets the release that waits as challenger serve; returns its version. Raises `NotFound`."""
    space.tenant.use_case(use_case)
    with space.records.lock(use_case):
        version = space.registry.find(use_case, "challenger")
        if version is None:
            raise NotFound("no release waits for approval", hint=f"orchard releases list {space.tenant.id} {use_case}")
        release.make_champion(space, use_case, version)
    return version


def roll_back(space: Space, use_case: str, to: int | None = None) -> int:
    """Lets an earlier release serve again; returns its version. Raises `NotFound`, `Tampered`."""
    space.tenant.use_case(use_case)
    with space.records.lock(use_case):
        return release.roll_back(space, use_case, to)


def quarantined(space: Space, use_case: str, upload_id: str, limit: int) -> list[dict[str, object]]:
    """Rows that an upload left in quarantine: line, rule, the raw row."""
    return quarantine.read_quarantine(space.files, use_case, upload_id, limit)
