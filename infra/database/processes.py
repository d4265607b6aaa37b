"""What the processes that work for a tenant have used so far, read regularly: a killed one loses nothing of it."""

from __future__ import annotations

from sqlalchemy import func, literal, select
from sqlalchemy.dialects import postgresql

from infra.database.tables import TenantRow, table
from infra.database.tenant_rows import TenantRows
from infra.database.usage_tables import ProcessRow
from infra.metering import peak_mb, shift

PROCESSES, TENANTS = table(ProcessRow), table(TenantRow)


class ProcessRecords(TenantRows):
    """One row per process and tenant that it works for."""

    def read_process(self, job_id: int | None = None, ended: str | None = None) -> None:
        """Stores what this process has used in its shift so far; `ended` says how the shift ended: done or failed."""
        now = shift()
        read = {"use_case": now.use_case, "cpu_s": now.cpu_s(), "peak_mb": peak_mb(), "ended": ended}
        values = {"tenant": self.tenant, "process": now.name, "job_id": job_id, **read}
        tier = select(*map(literal, values.values()), TENANTS.c.tier).where(TENANTS.c.tenant == self.tenant)
        statement = postgresql.insert(PROCESSES).from_select([*values, "tier"], tier)
        again = statement.on_conflict_do_update(
            index_elements=["tenant", "process"], set_={**read, "read_at": func.now()}
        )
        self._transact(lambda connection: connection.execute(again))
