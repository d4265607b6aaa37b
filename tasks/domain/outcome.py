"""What became of rows and partitions: receipts and verdicts, as values that can be stored and shown."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from tasks.domain.contract import Frozen


class PartitionOutcome(StrEnum):
    """The one state that training leaves a partition in."""

    TRAINED = "trained"
    REUSED = "reused"
    REJECTED = "rejected"  # not trainable: too few labelled rows, never any history
    FAILED = "failed"  # an error, or it took too long
    LEFT = "left"  # not reached: the run was stopped before


class Answer(StrEnum):
    """Who answers for a partition or a row."""

    OWN = "own"
    TENANT_WIDE = "tenant_wide"
    NAIVE = "naive"


class RowReceipt(Frozen):
    """Every row of an upload in exactly one of accepted, quarantined, duplicate."""

    read: int = Field(ge=0)
    accepted: int = Field(ge=0)
    quarantined: int = Field(ge=0)
    duplicate: int = Field(ge=0)

    @model_validator(mode="after")
    def _adds_up(self) -> RowReceipt:
        if self.accepted + self.quarantined + self.duplicate != self.read:
            raise ValueError(f"rows do not add up: {self!r}")
        return self


class PartitionReceipt(Frozen):
    """Every partition of a training run in exactly one of trained, reused, rejected, failed, left."""

    partitions: int = Field(ge=0)
    trained: int = Field(ge=0)
    reused: int = Field(ge=0)
    rejected: int = Field(ge=0)
    failed: int = Field(ge=0)
    left: int = Field(default=0, ge=0, description="not reached: the run was stopped over a budget")
    causes: dict[str, str] = Field(default={}, description="cause of failure → 'count × cause, e.g. partition'")

    @model_validator(mode="after")
    def _adds_up(self) -> PartitionReceipt:
        if self.trained + self.reused + self.rejected + self.failed + self.left != self.partitions:
            raise ValueError(f"partitions do not add up: {self!r}")
        return self


class ScoringReceipt(Frozen):
    """Every accepted row of a scoring run answered exactly once, and every partition by exactly one answerer."""

    rows: int = Field(ge=0)
    own: int = Field(ge=0)
    tenant_wide: int = Field(ge=0)
    naive: int = Field(ge=0)
    fallback: int = Field(ge=0, description="rows answered for want of a promoted model, whoever answered")
    partitions: int = Field(ge=0)
    unseen_partitions: int = Field(ge=0, description="keys that the release has no entry for")
    left: int = Field(default=0, ge=0, description="partitions that a stopped run did not reach; none of it is shown")

    @model_validator(mode="after")
    def _adds_up(self) -> ScoringReceipt:
        if self.own + self.tenant_wide + self.naive != self.rows:
            raise ValueError(f"answers do not add up: {self!r}")
        return self


class Promote(Frozen):
    """The candidate serves."""

    verdict: Literal["promote"] = "promote"
    reason: str


class Hold(Frozen):
    """The candidate does not serve; the champion stays, or a fallback answers."""

    verdict: Literal["hold"] = "hold"
    reason: str


Verdict = Promote | Hold
