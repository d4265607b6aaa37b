"""How far an upload or a job has come: one account of it, for the command line and for the HTTP API."""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from infra.database.queue import Queue
from infra.space import TenantSpace
from tasks.domain.contract import Frozen
from tasks.domain.job import Job, JobKind, JobStatus
from tasks.domain.names import Purpose, Stage
from tasks.domain.outcome import RowReceipt
from tasks.domain.run import RunStatus, Upload, UploadStatus


class UploadState(StrEnum):
    """Where an upload stands."""

    RECEIVED = "received"  # stored; nobody has asked for its turn
    QUEUED = "queued"  # waits for its turn, or its run is about to start
    RUNNING = "running"
    OVER_BUDGET = "over_budget"  # waits until more may be spent, or the month ends; `error` says how much
    WAITING_FOR_RELEASE = "waiting_for_release"  # scoring rows are in the table; no model serves yet
    DONE = "done"
    REJECTED = "rejected"  # the file is at fault
    FAILED = "failed"  # the work on it did not come through, however often it was tried


class QueuePlace(Frozen):
    """A place in the queue of the tenant's tier."""

    position: int = Field(ge=0, description="from 1; 0 when its turn has come and its run is starting", examples=[3])
    expected_wait_s: float | None = Field(
        ge=0, description="seconds, from the pace of the latest jobs of the tier; null while it is unknown"
    )


class StageProgress(Frozen):
    """How far the stage is that works now."""

    stage: Stage
    done_batches: int = Field(ge=0)
    batches: int = Field(ge=0, description="0 until the stage has planned its work")


class UploadProgress(Frozen):
    """An upload's status document."""

    upload_id: str = Field(examples=["0b9f6a1c2d3e4f5061728394a5b6c7d8"])
    use_case: str = Field(examples=["demand"])
    purpose: Purpose
    filename: str = Field(examples=["sales-2026-11.csv.gz"])
    status: UploadState
    received_at: datetime
    rows: RowReceipt = Field(description="every row in exactly one of accepted, quarantined, duplicate")
    error: str | None = Field(description="why it was rejected, or why the latest attempt did not come through")
    queue: QueuePlace | None = Field(description="while it is queued")
    progress: StageProgress | None = Field(description="while a stage works on it")
    attempts: int = Field(ge=0, description="times that its work was started")


class JobProgress(Frozen):
    """A job's status document."""

    job_id: int = Field(examples=[42])
    use_case: str = Field(examples=["demand"])
    kind: JobKind
    status: JobStatus
    upload_id: str | None
    requested_by: str = Field(examples=["api"])
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None = Field(description="why its latest attempt did not come through, or why it is held back")
    queue: QueuePlace | None = Field(description="while it waits for its turn")
    progress: StageProgress | None = Field(description="while a stage works on it")
    attempts: int = Field(ge=0, description="times that it was started")


def upload_progress(space: TenantSpace, queue: Queue, upload: Upload) -> UploadProgress:
    """The status of an upload as it is now. An upload that a command took in has no job, and no place in the queue."""
    job = space.records.job_of_upload(upload.upload_id)
    state = state_of(upload, job)
    ended_well = state in (UploadState.DONE, UploadState.WAITING_FOR_RELEASE)
    return UploadProgress(
        upload_id=upload.upload_id,
        use_case=upload.use_case,
        purpose=upload.purpose,
        filename=upload.filename,
        status=state,
        received_at=upload.received_at,
        rows=RowReceipt(
            read=upload.rows_read,
            accepted=upload.rows_accepted,
            quarantined=upload.rows_quarantined,
            duplicate=upload.rows_duplicate,
        ),
        error=(job.held if job is not None and state is UploadState.OVER_BUDGET else None)
        or upload.error
        or (job.error if job is not None and not ended_well else None),
        queue=_queue_place(space, queue, job) if job is not None and state is UploadState.QUEUED else None,
        progress=_stage_progress(space, upload.use_case) if state is UploadState.RUNNING else None,
        attempts=job.attempts if job is not None else 0,
    )


def job_progress(space: TenantSpace, queue: Queue, job: Job) -> JobProgress:
    """The status of a job as it is now."""
    waits = job.status in (JobStatus.WAITING, JobStatus.SUBMITTED)
    shared = (set(JobProgress.model_fields) & set(Job.model_fields)) - {"error"}
    held = job.held if job.status is JobStatus.WAITING else None
    return JobProgress(
        **{name: getattr(job, name) for name in shared},
        error=held or job.error,
        queue=_queue_place(space, queue, job) if waits and not held else None,
        progress=_stage_progress(space, job.use_case) if job.status is JobStatus.RUNNING else None,
    )


def state_of(upload: Upload, job: Job | None) -> UploadState:
    """What the two rows say together. What the upload says of its end counts more than its job, which ends later."""
    if upload.status is UploadStatus.DONE:
        return UploadState.DONE
    if upload.status is UploadStatus.REJECTED:
        return UploadState.REJECTED
    if job is not None and job.status is JobStatus.WAITING and job.held:
        return UploadState.OVER_BUDGET
    if job is not None and job.status in _OF_JOB:
        return _OF_JOB[job.status]
    if upload.status is UploadStatus.INGESTED and upload.purpose is Purpose.SCORING:
        return UploadState.WAITING_FOR_RELEASE
    return UploadState.RECEIVED


_OF_JOB = {
    JobStatus.WAITING: UploadState.QUEUED,
    JobStatus.SUBMITTED: UploadState.QUEUED,
    JobStatus.RUNNING: UploadState.RUNNING,
    JobStatus.FAILED: UploadState.FAILED,
}


def expected_wait_s(position: int, runs: int, seconds_each: float | None) -> float | None:
    """Seconds until the job at that place starts: the tier does `runs` of them at a time. None at an unknown pace."""
    return None if seconds_each is None else math.ceil(position / runs) * seconds_each


def _queue_place(space: TenantSpace, queue: Queue, job: Job) -> QueuePlace:
    place = queue.place(job)
    if place is None:  # it was handed out, now or a moment ago
        return QueuePlace(position=0, expected_wait_s=0)
    wait_s = expected_wait_s(place.position, space.policy.runs, place.seconds_each)
    return QueuePlace(position=place.position, expected_wait_s=wait_s)


def _stage_progress(space: TenantSpace, use_case: str) -> StageProgress | None:
    """Of a use case, one job at a time: whichever stage of it runs is the one that is meant."""
    for run in space.records.runs(use_case):
        if run.status is RunStatus.RUNNING:
            batches, pending = space.records.batches(run), space.records.batches(run, pending=True)
            return StageProgress(stage=run.stage, done_batches=len(batches) - len(pending), batches=len(batches))
    return None
