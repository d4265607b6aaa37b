"""How far the pulls of one tenant's use cases have come."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects import postgresql

from infra.database.job_tables import ScheduleRow
from infra.database.tables import UploadRow, table
from infra.database.tenant_rows import TenantRows
from tasks.domain.job import JobKind
from tasks.domain.run import UploadStatus

SCHEDULES, UPLOADS = table(ScheduleRow), table(UploadRow)


class Pulled(NamedTuple):
    """An upload that came of a pull, and the watermark that the pull began from."""

    upload_id: str
    since: object


class PullProgress(NamedTuple):
    """Where the next pull begins, None at the start; and the pulls before it whose uploads may still be rejected."""

    watermark: object | None = None
    pending: tuple[Pulled, ...] = ()


class PullRecords(TenantRows):
    """What was fetched from the tenant's own database, so that no row of it is left out."""

    def pull_progress(self, use_case: str) -> PullProgress:
        """How far the pulls of a use case have come: to the greatest watermark that was fetched, or, where uploads were
        rejected, to where the first of those began."""
        query = select(SCHEDULES.c.watermark).where(self._own(SCHEDULES), *_pull(use_case))
        kept = self._transact_shared(lambda connection: connection.scalar(query))
        if kept is None:
            return PullProgress()
        pulled = [Pulled(known["upload_id"], _restored(known["since"])) for known in kept.get("pending", [])]
        statuses = self._statuses([pull.upload_id for pull in pulled])
        pending = list[Pulled]()
        for pull in pulled:
            status = statuses.get(pull.upload_id)
            if status == UploadStatus.REJECTED:
                return PullProgress(pull.since, tuple(pending))
            if status == UploadStatus.RECEIVED:
                pending.append(pull)
        return PullProgress(_restored(kept), tuple(pending))

    def save_pull(self, use_case: str, before: PullProgress, pulled: Pulled, watermark: object) -> None:
        """Notes that a pull, for which the progress was `before`, became an upload and has come to `watermark`."""
        pending = [pull for pull in before.pending if pull.upload_id != pulled.upload_id]
        kept = _kept(watermark) | {
            "pending": [{"upload_id": pull.upload_id, "since": _kept(pull.since)} for pull in [*pending, pulled]]
        }
        values = {"tenant": self.tenant, "use_case": use_case, "kind": JobKind.PULL.value, "watermark": kept}
        insert = postgresql.insert(SCHEDULES).values(values)
        keys = ["tenant", "use_case", "kind"]
        statement = insert.on_conflict_do_update(index_elements=keys, set_={"watermark": kept})
        self._transact_shared(lambda connection: connection.execute(statement))

    def _statuses(self, upload_ids: list[str]) -> dict[str, str]:
        query = select(UPLOADS.c.upload_id, UPLOADS.c.status)
        query = query.where(self._own(UPLOADS), UPLOADS.c.upload_id.in_(upload_ids))
        return self._transact(lambda connection: {row.upload_id: row.status for row in connection.execute(query)})


def _pull(use_case: str) -> tuple[ColumnElement[bool], ...]:
    return SCHEDULES.c.use_case == use_case, SCHEDULES.c.kind == JobKind.PULL.value


def _kept(value: object) -> dict[str, Any]:
    """A watermark for JSON, which has neither dates nor times."""
    return {"type": type(value).__name__, "value": value.isoformat() if isinstance(value, date) else value}


def _restored(kept: Mapping[str, Any]) -> object:
    """A watermark as it was."""
    types = {"datetime": datetime.fromisoformat, "Timestamp": datetime.fromisoformat, "date": date.fromisoformat}
    return types.get(kept["type"], lambda value: value)(kept["value"])
