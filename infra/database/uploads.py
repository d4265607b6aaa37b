"""Uploads of one tenant, and the lock that gives a use case to one run at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import ColumnElement, Connection, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from infra.database.connect import session
from infra.database.tables import TenantRow, UploadRow, UseCaseRow, table
from infra.database.tenant_rows import TenantRows, if_given
from tasks.domain.errors import Busy, NotFound
from tasks.domain.names import Purpose
from tasks.domain.run import Upload, UploadStatus
from tasks.domain.tenant import Isolation, TenantState

TENANTS, UPLOADS, USE_CASES = table(TenantRow), table(UploadRow), table(UseCaseRow)

INTAKE = ""
"""Takes the place of a use case in the lock of what comes in for a tenant."""


class UploadRecords(TenantRows):
    """What arrived."""

    def add_upload(
        self,
        use_case: str,
        purpose: Purpose,
        upload_id: str,
        filename: str,
        size_bytes: int,
        content_sha256: str,
    ) -> tuple[Upload, bool]:
        """The upload of that identity, and whether it is new. Raises `NotFound` for an unknown use case, `Busy` while
        the tenant moves or leaves."""

        def work(connection: Connection) -> tuple[Upload, bool]:
            mine = self._own(USE_CASES) & (USE_CASES.c.use_case == use_case)
            # The row lock orders uploads: numbers have no gaps, and the second of two equals finds the first.
            last = connection.scalar(select(USE_CASES.c.last_seq).where(mine).with_for_update(key_share=True))
            if last is None:
                raise NotFound(f"tenant {self.tenant!r} has no use case {use_case!r}", hint="orchard tenants show")
            found = self._uploads(connection, UPLOADS.c.upload_id == upload_id)
            if found:
                return found[0], False
            self._check_open(connection)
            connection.execute(update(USE_CASES).where(mine).values(last_seq=last + 1))
            values = {
                "tenant": self.tenant, "use_case": use_case, "purpose": purpose.value, "upload_id": upload_id,
                "filename": filename, "size_bytes": size_bytes, "content_sha256": content_sha256,
                "seq": last + 1, "status": UploadStatus.RECEIVED.value,
            }  # fmt: skip
            connection.execute(insert(UPLOADS).values(values))
            return self._uploads(connection, UPLOADS.c.upload_id == upload_id)[0], True

        return self._transact(work)

    def upload(self, upload_id: str) -> Upload:
        """Raises `NotFound`."""
        found = self._transact(lambda connection: self._uploads(connection, UPLOADS.c.upload_id == upload_id))
        return self._only(found, upload_id)

    def uploads(self, use_case: str | None = None) -> list[Upload]:
        """In the order of arrival."""
        return self._transact(lambda connection: self._uploads(connection, *if_given(UPLOADS.c.use_case, use_case)))

    def update_upload(self, upload_id: str, **fields: object) -> Upload:
        """Sets fields of `Upload`. Raises `NotFound`."""

        def work(connection: Connection) -> list[Upload]:
            mine = self._own(UPLOADS) & (UPLOADS.c.upload_id == upload_id)
            connection.execute(update(UPLOADS).where(mine).values(fields))
            return self._uploads(connection, mine)

        return self._only(self._transact(work), upload_id)

    @contextmanager
    def lock(self, use_case: str) -> Iterator[None]:
        """Holds the use case for one run at a time; freed when the process ends, however it ends. Raises `Busy`, also
        while the tenant moves or leaves."""
        with self.hold(use_case):
            self._transact(self._check_open)
            yield

    @contextmanager
    def hold(self, use_case: str) -> Iterator[None]:
        """`lock`, for whoever moves or removes what the tenant has."""
        with session(self.url) as connection:
            if not connection.scalar(select(func.pg_try_advisory_lock(lock_key(self.tenant, use_case)))):
                raise Busy(
                    f"another run works on {self.tenant}.{use_case}",
                    hint="wait until it has ended: orchard status",
                )
            try:
                yield
            finally:  # now, and not a moment after the connection is closed: whoever comes next may come at once
                with suppress(DBAPIError):
                    connection.execute(select(func.pg_advisory_unlock(lock_key(self.tenant, use_case))))

    @contextmanager
    def taking_in(self) -> Iterator[None]:
        """For whoever stores what came in: until the block ends, the tenant neither moves nor leaves. Raises `Busy`
        when it does already."""
        with session(self.url) as connection:
            held = connection.scalar(select(func.pg_try_advisory_lock_shared(lock_key(self.tenant, INTAKE))))
            self._transact(self._check_open)
            if not held:
                raise Busy(f"tenant {self.tenant!r} is about to move or to leave", hint="try again later")
            yield

    def _check_open(self, connection: Connection) -> None:
        """Raises `Busy` where no work may begin: the tenant moves or leaves, or its data has moved elsewhere."""
        row = connection.execute(select(TENANTS.c.state, TENANTS.c.isolation).where(self._own(TENANTS))).one_or_none()
        if row is None or row.state != TenantState.ACTIVE:
            state = "gone" if row is None else row.state
            raise Busy(f"tenant {self.tenant!r} is {state}: no work begins now", hint="try again later")
        if (row.isolation == Isolation.SILO) is not bool(self.shared_url):
            raise Busy(f"the data of tenant {self.tenant!r} has moved", hint="try again")

    def _uploads(self, connection: Connection, *conditions: ColumnElement[bool]) -> list[Upload]:
        columns = [UPLOADS.c[name] for name in Upload.model_fields]
        query = select(*columns).where(self._own(UPLOADS), *conditions)
        rows = connection.execute(query.order_by(UPLOADS.c.received_at, UPLOADS.c.seq)).mappings()
        return [Upload.model_validate(dict(row)) for row in rows]

    def _only(self, found: list[Upload], upload_id: str) -> Upload:
        if not found:
            raise NotFound(f"tenant {self.tenant!r} has no upload {upload_id!r}", found=upload_id)
        return found[0]


def lock_key(tenant: str, use_case: str) -> int:
    """The number of the lock that a run of the use case holds."""
    digest = hashlib.sha256(f"{tenant}\x00{use_case}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
