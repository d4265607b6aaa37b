"""The audit: who did what to which tenant, when, from where, and how it ended.

Entries are numbered without a gap, and each carries a MAC over itself and the MAC of the one before, under a key that
the database does not hold. What names people and things is kept beside them, in details that the entry authenticates:
when a tenant is erased its details go, and the chain stays whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pandas as pd
from sqlalchemy import Connection, Select, delete, func, insert, select

from infra.database.audit_chain import DETAILS, ENTRIES, FORGET, READ_AT_ONCE, Anchor, Macs, Verification, check_chain
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.frames import read_frame
from infra.settings import derived_password
from tasks.domain.contract import Frozen

Outcome = Literal["done", "refused", "failed"]

MAX_TEXT = 500


class Actor(Frozen):
    """Who did it, and from where.

    `who`: `operator:root`, `key:3f9c2d71a04be586`, `operator-key:…`, `run:pipeline`, `inbox`.
    `origin`: `cli`, `api 127.0.0.1`, `flow`.
    """

    who: str
    origin: str


SOMEBODY = Actor(who="operator", origin="process")
"""Who runs Orchard's code, and does not say more."""

ERASURE = Actor(who="orchard", origin="erasure")


@dataclass(frozen=True)
class Audit:
    """The audit of one Orchard. Only the operator's login reaches it; no step of a tenant's run ever gets it."""

    cluster: Cluster

    def record(
        self,
        action: str,
        outcome: Outcome,
        *,
        by: Actor,
        tenant: str | None = None,
        once: str | None = None,
        **details: object,
    ) -> int:
        """Adds an entry; returns its number. Raises `DatabaseUnavailable` when it could not be added.

        `once` names what must be told only once: a second call with the same name returns the first one's entry, so
        whoever repeats an act that broke off need not know how far it came. `details` are ids, use cases, counts and
        versions; no file names, and no values of data.
        """
        once = once or secrets.token_hex(16)  # a transaction that is repeated may have come through before

        def work(connection: Connection) -> int:
            return self.add(connection, action, outcome, by=by, tenant=tenant, once=once, **details)

        return transact(self.cluster.operator_url, work)

    def add(
        self,
        connection: Connection,
        action: str,
        outcome: Outcome,
        *,
        by: Actor,
        once: str,
        tenant: str | None = None,
        **details: object,
    ) -> int:
        """As `record`, inside a transaction of the operator's: what is done and its entry are stored together, or not
        at all. To be called last, because nobody else can add entries until the transaction ends."""
        token = self._macs.of_name(once)
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.audit"))))
        if (known := connection.scalar(select(DETAILS.c.entry).where(DETAILS.c.token == token))) is not None:
            return int(known)
        subject = None if tenant is None else self.subject(tenant)
        detail = {
            "tenant": None if tenant is None else _plain(tenant),
            "actor": _plain(by.who),
            "origin": _plain(by.origin),
            "details": _plain(details),
            "token": token,
        }
        return self._append(connection, action, outcome, subject, detail)

    def forget(self, tenant: str, *, by: Actor = ERASURE) -> int:
        """Deletes the details of a tenant's entries, and says so in an entry of its own; returns how many there were.

        Without that entry, missing details are tampering. A second call finds nothing to do.
        """
        subject = self.subject(tenant)
        once = secrets.token_hex(16)

        def work(connection: Connection) -> int:
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("orchard.audit"))))
            gone = connection.execute(delete(DETAILS).where(DETAILS.c.tenant == tenant)).rowcount
            if gone:
                detail = {
                    "tenant": None,
                    "actor": _plain(by.who),
                    "origin": _plain(by.origin),
                    "details": {"entries": gone},
                    "token": self._macs.of_name(once),
                }
                self._append(connection, FORGET, "done", subject, detail)
            return gone

        return transact(self.cluster.operator_url, work)

    def subject(self, tenant: str) -> str:
        """The tenant's pseudonym: nobody without the secret key can tell whose it is, or make it again."""
        return self._macs.of_tenant(tenant)

    def entries(
        self,
        tenant: str | None = None,
        *,
        since: datetime | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Entries, the newest first: entry, at, tenant, action, outcome, actor, origin, details, subject.

        What was erased is missing in them. `tenant` finds its entries by pseudonym, so also those without details;
        `before` continues below an entry's number.
        """
        columns = [
            ENTRIES.c.entry, ENTRIES.c.at, DETAILS.c.tenant, ENTRIES.c.action, ENTRIES.c.outcome,
            DETAILS.c.actor, DETAILS.c.origin, DETAILS.c.details, ENTRIES.c.subject,
        ]  # fmt: skip
        query = select(*columns).select_from(ENTRIES.outerjoin(DETAILS, DETAILS.c.entry == ENTRIES.c.entry))
        if tenant is not None:
            query = query.where(ENTRIES.c.subject == self.subject(tenant))
        if since is not None:
            query = query.where(ENTRIES.c.at >= since)
        if action is not None:
            query = query.where(ENTRIES.c.action == action)
        if before is not None:
            query = query.where(ENTRIES.c.entry < before)
        query = query.order_by(ENTRIES.c.entry.desc()).limit(limit)
        return transact(self.cluster.operator_url, lambda connection: read_frame(connection, query))

    def exported(self, tenant: str | None = None) -> Iterator[dict[str, Any]]:
        """Entries with their MACs and all that they authenticate, the oldest first; of one tenant, or all."""
        wanted, after = [] if tenant is None else [ENTRIES.c.subject == self.subject(tenant)], 0
        joined = ENTRIES.outerjoin(DETAILS, DETAILS.c.entry == ENTRIES.c.entry)
        columns = [*ENTRIES.c, *(column for column in DETAILS.c if column.name != "entry")]
        pages = select(*columns).select_from(joined).where(*wanted).order_by(ENTRIES.c.entry).limit(READ_AT_ONCE)
        while rows := self._rows(pages.where(ENTRIES.c.entry > after)):
            yield from rows
            after = rows[-1]["entry"]

    def own_entries(
        self,
        tenant: str,
        *,
        since: datetime | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """A tenant's entries as it may see them, the newest first: number, at, action, outcome, actor, origin, details.
        They are numbered among its own: how much others do is none of its business; nor is what was done to another
        tenant that had its name before, and was erased."""
        number = func.row_number().over(order_by=ENTRIES.c.entry).label("number")
        shown = [
            ENTRIES.c.at,
            ENTRIES.c.action,
            ENTRIES.c.outcome,
            DETAILS.c.actor,
            DETAILS.c.origin,
            DETAILS.c.details,
        ]
        joined = ENTRIES.outerjoin(DETAILS, DETAILS.c.entry == ENTRIES.c.entry)
        its = ENTRIES.c.subject == self.subject(tenant)
        erased = select(func.coalesce(func.max(ENTRIES.c.entry), 0)).where(its, ENTRIES.c.action == FORGET)
        since_then = ENTRIES.c.entry > erased.scalar_subquery()
        own = select(number, *shown).select_from(joined).where(its, since_then).subquery()
        query = select(own).order_by(own.c.number.desc()).limit(limit)
        if since is not None:
            query = query.where(own.c.at >= since)
        if action is not None:
            query = query.where(own.c.action == action)
        if before is not None:
            query = query.where(own.c.number < before)
        return self._rows(query)

    def verify(self, anchor: Anchor | None = None) -> Verification:
        """Checks every entry, from the first to the last: number, MAC, and details where they still exist.

        The end of the chain could be cut off without a trace in it: an `anchor` from before shows that.
        """
        return transact(self.cluster.operator_url, lambda connection: check_chain(connection, self._macs, anchor))

    @property
    def _macs(self) -> Macs:
        return Macs(derived_password(self.cluster.secret_key, "audit"))

    def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        return transact(
            self.cluster.operator_url, lambda connection: [dict(row) for row in connection.execute(query).mappings()]
        )

    def _append(
        self, connection: Connection, action: str, outcome: str, subject: str | None, detail: Mapping[str, Any]
    ) -> int:
        last = connection.execute(
            select(ENTRIES.c.entry, ENTRIES.c.mac).order_by(ENTRIES.c.entry.desc()).limit(1)
        ).one_or_none()
        entry: dict[str, Any] = {
            "entry": last.entry + 1 if last else 1,
            "at": connection.scalar(select(func.clock_timestamp())),
            "subject": subject,
            "action": action,
            "outcome": outcome,
        }
        entry["details_mac"] = self._macs.of_details(entry["entry"], detail)
        entry["mac"] = self._macs.of_entry(entry, last.mac if last else "")
        connection.execute(insert(ENTRIES).values(entry))
        connection.execute(insert(DETAILS).values(entry=entry["entry"], **detail))
        return int(entry["entry"])


def _plain(value: Any) -> Any:
    """The value in a form that comes back from the database just as it went there: no float, which JSONB writes in its
    own way, no NUL, no text without end."""
    if value is None or isinstance(value, bool) or type(value) is int:
        return value
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return str(value)[:MAX_TEXT].encode(errors="replace").decode().replace("\x00", "\ufffd")


@dataclass(frozen=True)
class Witness:
    """The audit, for what one actor does."""

    audit: Audit
    by: Actor

    def record(
        self, action: str, outcome: Outcome, *, tenant: str | None = None, once: str | None = None, **details: object
    ) -> int:
        """As `Audit.record`."""
        return self.audit.record(action, outcome, by=self.by, tenant=tenant, once=once, **details)
