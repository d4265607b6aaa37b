"""The chain of the audit: how an entry is authenticated, and how all of them are checked."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select, text

from infra.database.tables import table
from infra.database.trust_tables import AuditDetailRow, AuditRow
from tasks.domain.contract import Frozen
from tasks.domain.errors import InvalidDefinition

ENTRIES, DETAILS = table(AuditRow), table(AuditDetailRow)

FORGET = "audit.forget"
"""The action of an entry that says: the details of this subject's earlier entries were erased."""

READ_AT_ONCE = 5_000
_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


class Anchor(Frozen):
    """An entry's number and MAC. Kept elsewhere, it shows later that no entry up to it was taken away."""

    entry: int
    mac: str

    def __str__(self) -> str:
        return f"{self.entry}:{self.mac}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """The inverse of `str`. Raises `InvalidDefinition`."""
        if (found := _ANCHOR.fullmatch(text.strip())) is None:
            raise InvalidDefinition("this is no anchor", expected="ENTRY:MAC, as `orchard audit verify` prints it")
        return cls(entry=int(found[1]), mac=found[2])


class Verification(Frozen):
    """What came of checking the whole chain.

    Attributes:
        entries: so many were checked, up to the first that is wrong.
        forgotten: so many of them have no details any more, because their tenant was erased.
        last: the anchor of the last entry that is right; None without any.
        wrong: the first thing that is wrong; None when all is as it was written.
    """

    entries: int
    forgotten: int
    last: Anchor | None
    wrong: str | None


@dataclass(frozen=True)
class Macs:
    """HMAC-SHA256 under the audit's key, each kind of message apart from the others."""

    key: str = field(repr=False)

    def of_entry(self, row: Mapping[Any, Any], mac_before: str) -> str:
        """Authenticates an entry and, through the MAC before it, all earlier ones."""
        at = row["at"].astimezone(UTC).isoformat(timespec="microseconds")
        known = (row["entry"], at, row["subject"], row["action"], row["outcome"], row["details_mac"])
        return self._of("entry", mac_before, *known)

    def of_details(self, entry: int, row: Mapping[Any, Any]) -> str:
        """Authenticates an entry's details."""
        known = (row["tenant"], row["actor"], row["origin"], row["details"], row["token"])
        return self._of("details", entry, *known)

    def of_tenant(self, tenant: str) -> str:
        """A tenant's pseudonym."""
        return self._of("subject", tenant)[:32]

    def of_name(self, once: str) -> str:
        """The token of what is told only once."""
        return self._of("once", once)

    def _of(self, *parts: object) -> str:
        message = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hmac.new(self.key.encode(), message.encode(), hashlib.sha256).hexdigest()


def check_chain(connection: Connection, macs: Macs, anchor: Anchor | None) -> Verification:
    """Checks all entries as of now, in the order of their numbers, up to the first that is wrong."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    forgets = select(ENTRIES.c.subject, func.max(ENTRIES.c.entry)).where(ENTRIES.c.action == FORGET)
    forgotten_until = {row[0]: row[1] for row in connection.execute(forgets.group_by(ENTRIES.c.subject))}
    both = ENTRIES.join(DETAILS, DETAILS.c.entry == ENTRIES.c.entry, full=True)
    names = ("tenant", "actor", "origin", "details", "token")
    query = (
        select(ENTRIES, DETAILS.c.entry.label("details_entry"), *(DETAILS.c[name] for name in names))
        .select_from(both)
        .order_by(func.coalesce(ENTRIES.c.entry, DETAILS.c.entry))
        .execution_options(yield_per=READ_AT_ONCE)
    )
    checked, forgotten, last = 0, 0, None
    with connection.execute(query) as result:
        for row in result.mappings():
            wrong = _wrong(row, macs, last, forgotten_until) or _unlike(row, anchor)
            if wrong is not None:
                return Verification(entries=checked, forgotten=forgotten, last=last, wrong=wrong)
            checked += 1
            forgotten += row["details_entry"] is None
            last = Anchor(entry=row["entry"], mac=row["mac"])
    cut = None
    if anchor is not None and anchor.entry > checked:
        cut = f"entry {checked + 1} is missing, and all after it: the anchor names entry {anchor.entry}"
    return Verification(entries=checked, forgotten=forgotten, last=last, wrong=cut)


def _wrong(row: RowMapping, macs: Macs, last: Anchor | None, forgotten_until: Mapping[str | None, int]) -> str | None:
    """What is wrong with an entry, given the one before it."""
    expected = last.entry + 1 if last else 1
    if row["entry"] is None:
        return f"entry {row['details_entry']} has details, and does not exist"
    if row["entry"] != expected:
        return f"entry {expected} is missing"
    if not hmac.compare_digest(row["mac"], macs.of_entry(row, last.mac if last else "")):
        return f"entry {expected} is not as it was written"
    if row["details_entry"] is None:
        if row["subject"] is not None and expected < forgotten_until.get(row["subject"], 0):
            return None
        return f"the details of entry {expected} are missing, and no erasure took them"
    if not hmac.compare_digest(row["details_mac"], macs.of_details(expected, row)):
        return f"the details of entry {expected} are not as they were written"
    return None


def _unlike(row: RowMapping, anchor: Anchor | None) -> str | None:
    if anchor is None or row["entry"] != anchor.entry or hmac.compare_digest(row["mac"], anchor.mac):
        return None
    return f"entry {anchor.entry} is not the one that the anchor names: the chain was cut off and went on anew"
