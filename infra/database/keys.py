"""API keys: a key decides who its caller is, so only the operator's login sees them.

A tenant's key opens that tenant's part of the API as far as its role goes; an operator's key, any tenant's. What is
stored is a digest: 256 random bits need no salt and no slow hash. Each change and its entry in the audit are one
transaction.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from infra.database.audit import SOMEBODY, Actor, Audit
from infra.database.cluster import Cluster
from infra.database.connect import transact
from infra.database.job_tables import ApiKeyRow
from infra.database.operator import Operator
from infra.database.tables import table
from infra.database.trust_tables import OperatorKeyRow
from tasks.domain.access import Role
from tasks.domain.contract import Frozen
from tasks.domain.errors import InvalidDefinition, NotFound

KEYS, OPERATOR_KEYS = table(ApiKeyRow), table(OperatorKeyRow)

PREFIX = "orc_"
"""Lets people and secret scanners recognise a key."""

OPERATOR_PREFIX = "orc_op_"
"""Begins an operator's key, which is longer than a tenant's: nothing is both."""

SECRET_BYTES = 32
MAX_NAME = 100
OVERLAP = timedelta(hours=24)
MAX_LIFE = timedelta(days=3650)
_FORM = re.compile(rf"({PREFIX}|{OPERATOR_PREFIX})[A-Za-z0-9_-]{{43}}")


class ApiKey(Frozen):
    """A key as it is remembered: all but the key itself. `tenant` is None for an operator's; `expires_at`, for one that
    counts until it is revoked."""

    tenant: str | None
    key_id: str
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def who(self) -> str:
        """What the audit calls its holder."""
        return f"{'operator-key' if self.tenant is None else 'key'}:{self.key_id}"


@dataclass(frozen=True)
class Keys:
    """The keys of all tenants, and those of operators, whose tenant is None. `by` is who changes them."""

    cluster: Cluster
    by: Actor = SOMEBODY

    def create(
        self, tenant: str | None, name: str, role: Role = Role.UPLOADER, life: timedelta | None = None
    ) -> tuple[str, str]:
        """A new key's id, and the key, which nobody can show again. An operator's has every role. `life` is how long it
        counts; for ever without it. Raises `NotFound`, `InvalidDefinition`."""
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            raise InvalidDefinition("this is no name for a key", expected=f"1 to {MAX_NAME} characters", found=name)
        if life is not None and not timedelta(0) < life <= MAX_LIFE:
            raise InvalidDefinition("no key lives so long", expected=f"more than 0, up to {MAX_LIFE}", found=str(life))
        self._known(tenant)
        key_id, key = _new_key(tenant)

        def work(connection: Connection) -> None:
            _insert(connection, tenant, key_id, key, name.strip(), role, life)
            self._tell(connection, "create", tenant, key_id, role=_role(tenant, role), expires=life is not None)

        transact(self.cluster.operator_url, work)
        return key_id, key

    def list(self, tenant: str | None) -> Sequence[ApiKey]:
        """The tenant's keys, or the operators', oldest first, also those that count no more. Raises `NotFound`."""
        self._known(tenant)
        rows = _table(tenant)
        query = _keys(tenant).order_by(rows.c.created_at, rows.c.key_id)
        return transact(
            self.cluster.operator_url,
            lambda connection: [_key(row) for row in connection.execute(query).mappings()],
        )

    def revoke(self, tenant: str | None, key_id: str) -> ApiKey:
        """The key does not count any more; a second call changes nothing. Raises `NotFound`."""
        rows = _table(tenant)
        statement = update(rows).where(_mine(tenant, key_id))

        def work(connection: Connection) -> ApiKey:
            connection.execute(statement.values(revoked_at=func.coalesce(rows.c.revoked_at, func.now())))
            key = _one(connection, tenant, key_id)
            self._tell(connection, "revoke", tenant, key_id)
            return key

        return transact(self.cluster.operator_url, work)

    def rotate(self, tenant: str | None, key_id: str, overlap: timedelta = OVERLAP) -> tuple[str, str]:
        """A new key in the place of another: its name, its role, and as long a life, from now on. The old one counts
        for as long as `overlap` says, if it has not expired before. Raises `NotFound`, `InvalidDefinition`."""
        if not timedelta(0) <= overlap <= MAX_LIFE:
            raise InvalidDefinition("this is no overlap", expected=f"0 to {MAX_LIFE}", found=str(overlap))
        rows = _table(tenant)
        new_id, key = _new_key(tenant)
        until = func.least(rows.c.expires_at, func.now() + overlap)  # `least` ignores null

        def work(connection: Connection) -> None:
            old = _one(connection, tenant, key_id)
            life = old.expires_at - old.created_at if old.expires_at else None
            if not _insert(connection, tenant, new_id, key, old.name, old.role, life):
                return
            if not connection.scalar(select(_table(tenant).c.key_id).where(_mine(tenant, key_id), _counts(tenant))):
                raise InvalidDefinition(
                    f"key {key_id} counts no more", hint=f"make a new one: {_command('create', tenant)} --name …"
                )
            connection.execute(update(rows).where(_mine(tenant, key_id)).values(expires_at=until))
            details = {"replaces": key_id, "overlap_s": int(overlap.total_seconds())}
            self._tell(connection, "rotate", tenant, new_id, role=_role(tenant, old.role), **details)

        transact(self.cluster.operator_url, work)
        return new_id, key

    def holder(self, key: str) -> ApiKey | None:
        """What is known of a presented key; None for one that is unknown, revoked or expired. Asks at once, and waits
        for no database that is away. Raises `DatabaseUnavailable`."""
        form = _FORM.fullmatch(key)
        if form is None:
            return None
        tenant = None if form[1] == OPERATOR_PREFIX else ""
        rows, digest = _table(tenant), digest_of(key)
        query = _columns(tenant).add_columns(rows.c.digest).where(rows.c.digest == digest, _counts(tenant))
        found = transact(
            self.cluster.operator_url,
            lambda connection: connection.execute(query).mappings().one_or_none(),
            patient=False,
        )
        if found is None or not hmac.compare_digest(found["digest"], digest):
            return None
        return _key({name: found[name] for name in found if name != "digest"})

    def _known(self, tenant: str | None) -> None:
        if tenant is not None:
            Operator(self.cluster).tenant(tenant)

    def _tell(self, connection: Connection, act: str, tenant: str | None, key_id: str, **details: object) -> None:
        audit, once = Audit(self.cluster), f"key/{key_id}/{act}"
        audit.add(connection, f"key.{act}", "done", by=self.by, tenant=tenant, once=once, key_id=key_id, **details)


def is_key(text: str) -> bool:
    """Whether it has the form of a key, real or not."""
    return _FORM.fullmatch(text) is not None


def digest_of(key: str) -> str:
    """What is stored of a key: its SHA-256, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def _new_key(tenant: str | None) -> tuple[str, str]:
    return secrets.token_hex(8), (OPERATOR_PREFIX if tenant is None else PREFIX) + secrets.token_urlsafe(SECRET_BYTES)


def _table(tenant: str | None) -> Table:
    return OPERATOR_KEYS if tenant is None else KEYS


def _role(tenant: str | None, role: Role) -> Role:
    return Role.ADMIN if tenant is None else role


def _columns(tenant: str | None) -> Select[Any]:
    rows = _table(tenant)
    return select(*(rows.c[name] for name in ApiKey.model_fields if name in rows.c))


def _keys(tenant: str | None) -> Select[Any]:
    return _columns(tenant) if tenant is None else _columns(tenant).where(KEYS.c.tenant == tenant)


def _mine(tenant: str | None, key_id: str) -> ColumnElement[bool]:
    mine = literal(True) if tenant is None else KEYS.c.tenant == tenant
    return mine & (_table(tenant).c.key_id == key_id)


def _counts(tenant: str | None) -> ColumnElement[bool]:
    rows = _table(tenant)
    return rows.c.revoked_at.is_(None) & (rows.c.expires_at.is_(None) | (rows.c.expires_at > func.now()))


def _key(row: Mapping[Any, Any]) -> ApiKey:
    return ApiKey.model_validate({"tenant": None, "role": Role.ADMIN, **row})


def _one(connection: Connection, tenant: str | None, key_id: str) -> ApiKey:
    query = _columns(tenant).where(_mine(tenant, key_id)).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        whose = "no operator has a" if tenant is None else f"tenant {tenant!r} has no"
        raise NotFound(f"{whose} key {key_id!r}", found=key_id, hint=_command("list", tenant))
    return _key(row)


def _insert(
    connection: Connection, tenant: str | None, key_id: str, key: str, name: str, role: Role, life: timedelta | None
) -> bool:
    """Stores a key; False when it is there already: a transaction is repeated when its connection broke, and its first
    try may have come through."""
    values: dict[str, Any] = {"key_id": key_id, "name": name, "digest": digest_of(key)}
    if tenant is not None:
        values |= {"tenant": tenant, "role": role.value}
    if life is not None:
        values["expires_at"] = func.now() + life
    row = insert(_table(tenant)).values(values).on_conflict_do_nothing(index_elements=["digest"])
    return connection.scalar(row.returning(_table(tenant).c.key_id)) is not None


def _command(act: str, tenant: str | None) -> str:
    return f"orchard keys {act} {'--operator' if tenant is None else tenant}"
