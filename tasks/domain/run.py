"""Uploads, runs, batches and releases: the rows of the database, as values."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from tasks.domain.contract import Frozen
from tasks.domain.names import Purpose, Stage


class UploadStatus(StrEnum):
    RECEIVED = "received"
    INGESTED = "ingested"
    REJECTED = "rejected"
    DONE = "done"


class RunStatus(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"  # over a budget: what it finished can be used, and it goes on when it may


class Upload(Frozen):
    """One file that arrived for one use case. `seq` orders the uploads of a use case, from 1."""

    upload_id: str
    use_case: str
    purpose: Purpose
    seq: int
    filename: str
    size_bytes: int
    content_sha256: str
    status: UploadStatus
    received_at: datetime
    dataset_version: int | None = None
    rows_read: int = 0
    rows_accepted: int = 0
    rows_quarantined: int = 0
    rows_duplicate: int = 0
    error: str | None = None
    report: str | None = Field(default=None, description="path of the Data Docs page, under the tenant's root")


BOOKKEEPING = ("bundle_run", "look_back", "upload_seq", "training_version")
"""Numbers of a receipt that only the platform reads."""


class Run(Frozen):
    """One attempt-spanning execution of one stage; `key` makes it idempotent."""

    run_id: int
    key: str
    use_case: str
    stage: Stage
    status: RunStatus
    upload_id: str | None = None
    dataset_version: int | None = None
    release_version: int | None = None
    attempts: int = 1
    started_at: datetime
    finished_at: datetime | None = None
    receipt: dict[str, object] = Field(default={})
    error: str | None = None

    @property
    def account(self) -> str:
        """The numbers of its receipt that say something to a person."""
        numbers = {name: value for name, value in self.receipt.items() if isinstance(value, int | float)}
        shown = {name: value for name, value in numbers.items() if name not in BOOKKEEPING and value is not False}
        return ", ".join(f"{name.replace('_', ' ')} {value:,.6g}" for name, value in shown.items())

    @property
    def usable(self) -> bool:
        """Whether its models can be promoted and built on."""
        return self.status in (RunStatus.FINISHED, RunStatus.STOPPED)

    @property
    def outcome_key(self) -> str:
        """Identifies what it left behind: a run that was stopped leaves less than the same run once it is finished."""
        return f"{self.key}-{self.attempts}" if self.status is RunStatus.STOPPED else self.key

    @property
    def outcome_keys(self) -> set[str]:
        """The keys of all that its attempts may have left behind."""
        return {self.key, *(f"{self.key}-{attempt}" for attempt in range(1, self.attempts + 1))}


class Batch(Frozen):
    """A group of partitions of one bucket that one mapped task works on."""

    run_id: int
    number: int
    bucket: int
    partitions: tuple[str, ...]
    rows: int = 0


class Release(Frozen):
    """An immutable production version of a use case: registry version, files, and where its models come from."""

    version: int
    use_case: str
    training_run: int
    dataset_version: int
    upload_seq: int = Field(description="highest upload that its dataset version holds")
    status: str = Field(description="champion, challenger, retired or removed")
    source: str = Field(description="URL of the release's MLflow model folder")
    digest: str = Field(description="sha256 of its manifest")
    partitions: int
    promoted: int
    held: int
    created_at: datetime


def run_key(stage: Stage, use_case: str, *parts: object) -> str:
    """Idempotency key of a run: equal inputs give the same run, which a second attempt resumes."""
    text = "\x00".join([stage.value, use_case, *map(str, parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
