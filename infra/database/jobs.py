"""Jobs of one tenant: asked for, begun, kept alive, ended. Whose turn it is, `infra.database.queue` decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, case, false, func, literal, or_, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from infra.database.job_tables import JobRow
from infra.database.tables import table
from infra.database.tenant_rows import TenantRows
from tasks.domain.errors import NotFound, Superseded
from tasks.domain.job import Job, JobKind, JobStatus

JOBS = table(JobRow)

TRIES = 5
"""So often a job is tried before it has failed for good."""

FIRST_WAIT_S, LONGEST_WAIT_S = 5, 300
"""A job that failed for a passing reason waits so long before its next turn, twice as long each time."""

SILENT_S = 15
"""A run that was not heard of for so long is dead; it speaks every few seconds."""

ENDED = (JobStatus.DONE.value, JobStatus.FAILED.value)


class JobRecords(TenantRows):
    """What waits for its turn, and what became of it."""

    def request(
        self, use_case: str, kind: JobKind, upload_id: str | None = None, *, by: str, upload_bytes: int = 0
    ) -> Job:
        """The job of that upload, or the one of its kind that waits already; a new one where there is none. A job of
        an upload that had ended waits again."""
        return self._transact_shared(
            lambda connection: request_job(connection, self.tenant, use_case, kind, upload_id, by, upload_bytes)
        )

    def job(self, job_id: int) -> Job:
        """Raises `NotFound`."""
        found = self._jobs(JOBS.c.job_id == job_id)
        if not found:
            raise NotFound(f"tenant {self.tenant!r} has no job {job_id}")
        return found[0]

    def job_of_upload(self, upload_id: str) -> Job | None:
        """The job of an upload; None where it never waited, because a command took it in at once."""
        found = self._jobs(JOBS.c.upload_id == upload_id)
        return found[0] if found else None

    def jobs(self, use_case: str | None = None, limit: int = 100) -> list[Job]:
        """Newest first."""
        return self._jobs(*([] if use_case is None else [JOBS.c.use_case == use_case]), limit=limit)

    def start_job(self, job_id: int, attempt: int, flow_run_id: str | None) -> Job:
        """Marks an attempt as running. Raises `Superseded` when another attempt has taken its place: a run that was
        given up, and starts after all, must not do the work a second time."""
        silent = JOBS.c.heartbeat_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, SILENT_S)
        mine = (
            (JOBS.c.attempts == attempt)
            & JOBS.c.status.not_in([JobStatus.DONE, JobStatus.WAITING])
            & or_(JOBS.c.status != JobStatus.RUNNING, silent, JOBS.c.flow_run_id == flow_run_id)
        )
        values = {
            "status": JobStatus.RUNNING.value, "started_at": func.now(), "heartbeat_at": func.now(),
            "flow_run_id": flow_run_id, "error": None,
        }  # fmt: skip
        statement = update(JOBS).where(self._is_job(job_id), mine).values(values).returning(JOBS)
        row = self._transact_shared(lambda connection: connection.execute(statement).mappings().one_or_none())
        if row is None:
            job = self.job(job_id)
            raise Superseded(
                f"attempt {attempt} of job {job_id} is no longer wanted", found=f"{job.status}, attempt {job.attempts}"
            )
        return job_of(row)

    def beat(self, job_id: int, attempt: int) -> bool:
        """Says that the attempt is alive; False when it was given up in the meantime."""
        mine = self._is_job(job_id) & (JOBS.c.attempts == attempt) & (JOBS.c.status == JobStatus.RUNNING)
        statement = update(JOBS).where(mine).values(heartbeat_at=func.now())
        return bool(self._transact_shared(lambda connection: connection.execute(statement).rowcount))

    def end_job(self, job_id: int, attempt: int, error: str | None = None) -> None:
        """The attempt has ended for good: done or, with an error, failed."""
        status = JobStatus.DONE if error is None else JobStatus.FAILED
        values: dict[str, object] = {"status": status.value, "finished_at": func.now(), "error": error}
        self._settle(job_id, attempt, values)

    def give_back(self, job_id: int, attempt: int, error: str, *, at_once: bool = False) -> None:
        """The attempt ended for a passing reason: the job waits again, a while longer each time, until it was tried
        often enough. `at_once`: the reason was none of its own, so it does not wait longer."""
        self._settle(job_id, attempt, given_back(error, at_once))

    def postpone(self, job_id: int, attempt: int, error: str, pause_s: float = FIRST_WAIT_S) -> None:
        """The attempt ended for a reason that is none of its own (no more may be spent; another run works on the use
        case): the job waits until it may go on, and has as many tries left."""
        self._settle(job_id, attempt, postponed(error, pause_s))

    def _settle(self, job_id: int, attempt: int, values: dict[str, object]) -> None:
        mine = self._is_job(job_id) & (JOBS.c.attempts == attempt)
        self._transact_shared(lambda connection: settle_job(connection, mine, values))

    def _is_job(self, job_id: int) -> ColumnElement[bool]:
        return self._own(JOBS) & (JOBS.c.job_id == job_id)

    def _jobs(self, *conditions: ColumnElement[bool], limit: int = 1) -> list[Job]:
        query = select(JOBS).where(self._own(JOBS), *conditions).order_by(JOBS.c.job_id.desc()).limit(limit)
        return self._transact_shared(lambda connection: [job_of(row) for row in connection.execute(query).mappings()])


def request_job(
    connection: Connection,
    tenant: str,
    use_case: str,
    kind: JobKind,
    upload_id: str | None,
    by: str,
    upload_bytes: int = 0,
) -> Job:
    """`JobRecords.request` within a transaction."""
    values = {
        "tenant": tenant, "use_case": use_case, "kind": kind.value, "upload_id": upload_id, "requested_by": by,
        "upload_bytes": upload_bytes,
    }  # fmt: skip
    insert = postgresql.insert(JOBS).values(values)
    if upload_id is None:
        insert = insert.on_conflict_do_update(
            index_elements=["tenant", "use_case", "kind"],
            # Spelled out: once such a statement is prepared, no parameter is known to be what the index asks for.
            index_where=text("upload_id IS NULL AND status = 'waiting'"),
            set_={"error": JOBS.c.error},  # nothing, but the row comes back
        )
    else:
        ended = JOBS.c.status.in_(ENDED)
        again = {
            "status": case((ended, JobStatus.WAITING.value), else_=JOBS.c.status),
            "tries_left": case((ended, TRIES), else_=JOBS.c.tries_left),
            "not_before": case((ended, func.now()), else_=JOBS.c.not_before),
            "error": case((ended, None), else_=JOBS.c.error),
        }
        insert = insert.on_conflict_do_update(
            index_elements=["tenant", "upload_id"], index_where=JOBS.c.upload_id.is_not(None), set_=again
        )
    return job_of(connection.execute(insert.returning(JOBS)).mappings().one())


def settle_job(connection: Connection, mine: ColumnElement[bool], values: Mapping[str, Any]) -> None:
    """Says how an attempt ended. Of a use case, one job of a kind waits at a time: where an equal one was asked for in
    the meantime, that one does what is left, and this one is over."""
    statement = update(JOBS).where(mine).values(dict(values))
    try:
        with connection.begin_nested():
            connection.execute(statement)
    except IntegrityError:  # it was asked for this very moment; now the statement sees it
        connection.execute(statement)


def given_back(error: str, at_once: bool) -> dict[str, object]:
    """Column values of a job that waits again, or has been tried often enough."""
    last = JOBS.c.tries_left <= 1
    pause_s = func.least(LONGEST_WAIT_S, FIRST_WAIT_S * func.power(2, TRIES - JOBS.c.tries_left))
    waits = _waits_again(error, literal(0) if at_once else pause_s, unless=last)
    return {**waits, "tries_left": JOBS.c.tries_left - 1}


def postponed(error: str, pause_s: float) -> dict[str, object]:
    """Column values of a job that waits again, and has as many tries left: the reason was none of its own."""
    return _waits_again(error, literal(pause_s), unless=false())


def _waits_again(error: str, pause_s: ColumnElement[Any], unless: ColumnElement[bool]) -> dict[str, object]:
    over = or_(unless, _EQUAL_WAITS)
    replaced = f"{error}; an equal job, asked for since, does it"
    return {
        "status": case((over, JobStatus.FAILED.value), else_=JobStatus.WAITING.value),
        "finished_at": case((over, func.now()), else_=None),
        "not_before": func.now() + func.make_interval(0, 0, 0, 0, 0, 0, pause_s),
        "heartbeat_at": None,
        "error": case((_EQUAL_WAITS, replaced), else_=error),
    }


_OTHER = JOBS.alias("other")
_EQUAL_WAITS = JOBS.c.upload_id.is_(None) & (
    select(_OTHER.c.job_id)
    .where(
        *(_OTHER.c[name] == JOBS.c[name] for name in ("tenant", "use_case", "kind")),
        _OTHER.c.upload_id.is_(None),
        _OTHER.c.status == JobStatus.WAITING.value,
        _OTHER.c.job_id != JOBS.c.job_id,
    )
    .correlate(JOBS)
    .exists()
)


def job_of(row: RowMapping) -> Job:
    """A row as a value."""
    return Job.model_validate({name: row[name] for name in Job.model_fields})
