"""Jobs: work that waits in the database for its turn."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from tasks.domain.contract import Frozen


class JobKind(StrEnum):
    """What is to be done; each kind is a flow with one deployment per tier."""

    PIPELINE = "pipeline"  # one upload, from file to result
    REFRESH = "refresh"  # train what changed, promote, score the open rows
    SCORING = "scoring"  # score the open rows with the release that serves
    PULL = "pull"  # fetch what is new from the tenant's own database, and hand it in


class JobStatus(StrEnum):
    WAITING = "waiting"  # for a slot of its tier, and for its tenant's turn
    SUBMITTED = "submitted"  # handed to the tier's work pool; holds a slot
    RUNNING = "running"  # its process has said so, and keeps saying so
    DONE = "done"
    FAILED = "failed"  # tried as often as is sensible, or for a reason that trying again does not mend


class Job(Frozen):
    """One piece of work for one use case.

    Attributes:
        attempts: times it was handed out; (job, attempt) identifies a run in Prefect.
        upload_bytes: size of its upload; 0 without one.
        tier, pool: its tenant's tier, and the work pool whose slot it holds, since it was handed out last.
        not_before: when it may be handed out at the earliest; of one that was given back, a while later.
        held: why it is not handed out although it waits: its tenant, or its use case, is over a budget.
        requested_by: who asked: `api`, `inbox`, `cli`, `schedule`, `pull`.
    """

    tenant: str
    job_id: int
    use_case: str
    kind: JobKind
    upload_id: str | None = None
    upload_bytes: int = 0
    status: JobStatus
    requested_by: str
    attempts: int = 0
    tier: str | None = None
    pool: str | None = None
    flow_run_id: str | None = None
    created_at: datetime
    not_before: datetime | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    held: str | None = None

    @property
    def key(self) -> str:
        """Identifies an attempt, for whoever must not start it twice."""
        return f"{self.tenant}/{self.job_id}:{self.attempts}"


def deployment_name(kind: str, pool: str) -> str:
    """Name of a kind's deployment in a work pool: `pipeline-premium` in a tier's, `pipeline-tenant-acme` in a tenant's
    own."""
    return f"{kind}-{pool.removeprefix('tier-')}"
