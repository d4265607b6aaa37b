"""Erasures: how far each has come, so that one that was cut off goes on, and the certificates of the others."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import Field
from sqlalchemy import ColumnElement, Connection, RowMapping, func, insert, select, update

from infra.database.cluster import Cluster
from infra.database.connect import session, transact
from infra.database.tables import table
from infra.database.trust_tables import ErasureRow
from infra.mentions import Leaver
from tasks.domain.contract import Frozen
from tasks.domain.errors import Busy, NotFound

ERASURES = table(ErasureRow)


class Done(Frozen):
    """What a step has found to remove, by kind, and when it had removed it: None until then."""

    found: dict[str, int] = Field(default={})
    at: datetime | None = None


class Progress(Frozen):
    """What an erasure that is under way remembers. It names the tenant, so it goes when the erasure is complete."""

    leaver: Leaver
    by: str
    export_to: str | None = None
    steps: dict[str, Done] = Field(default={})


class Erasure(Frozen):
    """One erasure. `tenant` and `progress` are None once it is complete, `certificate` until then."""

    erasure_id: str
    tenant: str | None
    subject: str
    started_at: datetime
    finished_at: datetime | None = None
    progress: Progress | None = Field(default=None)
    certificate: dict[str, Any] | None = None


@dataclass(frozen=True)
class Erasures:
    """All erasures. Only the operator's login reaches them."""

    cluster: Cluster

    def begin(self, leaver: Leaver, subject: str, by: str, export_to: str | None = None) -> Erasure:
        """The tenant's erasure: the one that was cut off, or a new one. `subject` is the tenant's pseudonym;
        `export_to` the folder that all it has is exported to before it is removed."""

        def work(connection: Connection) -> Erasure:
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.erasures"))))
            known = connection.execute(select(ERASURES).where(ERASURES.c.tenant == leaver.tenant)).mappings().first()
            if known is not None:
                return _erasure(known)
            values = {
                "erasure_id": secrets.token_hex(8),
                "tenant": leaver.tenant,
                "subject": subject,
                "steps": Progress(leaver=leaver, by=by, export_to=export_to).model_dump(mode="json"),
            }
            return _erasure(connection.execute(insert(ERASURES).values(values).returning(ERASURES)).mappings().one())

        return transact(self.cluster.operator_url, work)

    def export_first(self, erasure_id: str, step: str, folder: str) -> None:
        """An erasure that was cut off, and has removed nothing yet, is to export all of it into a folder, in that step,
        whether it has passed it or not."""

        def work(progress: Progress) -> Progress:
            steps = {name: done for name, done in progress.steps.items() if name != step}
            return progress.model_copy(update={"export_to": folder, "steps": steps})

        self._rewrite(erasure_id, work)

    def unfinished(self, tenant: str) -> Erasure | None:
        """The tenant's erasure that was cut off."""
        return self._first(ERASURES.c.tenant == tenant)

    def latest(self, subject: str) -> Erasure | None:
        """The latest erasure of whoever has that pseudonym, finished or not."""
        return self._first(ERASURES.c.subject == subject)

    def erasure(self, erasure_id: str) -> Erasure:
        """Raises `NotFound`."""
        found = self._first(ERASURES.c.erasure_id == erasure_id)
        if found is None:
            raise NotFound(f"there is no erasure {erasure_id!r}", hint="orchard tenants certificate list")
        return found

    def all(self) -> Sequence[Erasure]:
        """Newest first."""
        query = select(ERASURES).order_by(ERASURES.c.started_at.desc())
        return transact(self.cluster.operator_url, lambda c: [_erasure(row) for row in c.execute(query).mappings()])

    def found(self, erasure_id: str, step: str, counts: Mapping[str, int]) -> None:
        """Notes what a step is about to remove. Of what was counted before, the larger number counts: an attempt that
        was cut off has removed some of it."""

        def change(done: Done) -> Done:
            merged = {name: max(done.found.get(name, 0), count) for name, count in counts.items()}
            return Done(found={**done.found, **merged})

        self._change(erasure_id, step, change)

    def done(self, erasure_id: str, step: str) -> None:
        """Notes that a step has removed what it found."""
        self._change(erasure_id, step, lambda done: Done(found=done.found, at=datetime.now(UTC)))

    def reopen(self, erasure_id: str) -> None:
        """All steps are to be done again, because something was found afterwards; what was counted stays."""

        def work(progress: Progress) -> Progress:
            steps = {name: Done(found=done.found) for name, done in progress.steps.items()}
            return progress.model_copy(update={"steps": steps})

        self._rewrite(erasure_id, work)

    def finish(self, erasure_id: str, certificate: Mapping[str, Any]) -> None:
        """The erasure is complete: its row names the tenant no more. Does nothing the second time."""
        values = {"tenant": None, "finished_at": func.now(), "steps": {}, "certificate": dict(certificate)}
        mine = (ERASURES.c.erasure_id == erasure_id) & ERASURES.c.finished_at.is_(None)
        transact(self.cluster.operator_url, lambda c: c.execute(update(ERASURES).where(mine).values(values)))

    @contextmanager
    def alone(self, tenant: str) -> Iterator[None]:
        """Keeps a second erasure of the same tenant out, until the process ends, however it ends. Raises `Busy`."""
        with session(self.cluster.operator_url) as connection:
            key = func.hashtextextended(f"orchard.erase.{tenant}", 0)
            if not connection.scalar(select(func.pg_try_advisory_lock(key))):
                raise Busy(f"another command erases {tenant!r}", hint="wait until it has ended, and call again")
            yield

    def _first(self, condition: ColumnElement[bool]) -> Erasure | None:
        query = select(ERASURES).where(condition).order_by(ERASURES.c.started_at.desc()).limit(1)
        row = transact(self.cluster.operator_url, lambda connection: connection.execute(query).mappings().first())
        return None if row is None else _erasure(row)

    def _change(self, erasure_id: str, step: str, change: Callable[[Done], Done]) -> None:
        def work(progress: Progress) -> Progress:
            changed = change(progress.steps.get(step, Done()))
            return progress.model_copy(update={"steps": {**progress.steps, step: changed}})

        self._rewrite(erasure_id, work)

    def _rewrite(self, erasure_id: str, change: Callable[[Progress], Progress]) -> None:
        mine = ERASURES.c.erasure_id == erasure_id

        def work(connection: Connection) -> None:
            steps = connection.scalar(select(ERASURES.c.steps).where(mine).with_for_update())
            changed = change(Progress.model_validate(steps))
            connection.execute(update(ERASURES).where(mine).values(steps=changed.model_dump(mode="json")))

        transact(self.cluster.operator_url, work)


def _erasure(row: RowMapping) -> Erasure:
    steps = Progress.model_validate(row["steps"]) if row["tenant"] is not None else None
    names = ("erasure_id", "tenant", "subject", "started_at", "finished_at", "certificate")
    return Erasure(**{name: row[name] for name in names}, progress=steps)
