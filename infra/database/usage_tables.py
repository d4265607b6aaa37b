"""The tables of metering: what each tenant used, when, in which process; and what is nobody's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Double, Index, text
from sqlmodel import Field, SQLModel

from infra.database import budget_tables as budget_tables
from infra.database import trust_tables as trust_tables
from infra.database.tables import belongs_to, key_column, text_column, time_column

metadata = SQLModel.metadata
"""All tables: these, and those of the modules beside this one."""


def _number(kind: Any = Double, default: bool = True) -> Any:
    return Field(sa_type=kind, sa_column_kwargs={"server_default": text("0")} if default else {})


class UsageRow(SQLModel, table=True):
    """One row per unit of finished work: a batch, the rest of a run, or a minute of online requests.

    It is written in the transaction that stores the work's outcome, and never changed. `process` says which process
    did it.
    """

    __tablename__ = "usage"
    __table_args__ = (
        belongs_to("tenants", "tenant"),
        Index("usage_of_process", "tenant", "process"),
        Index("usage_by_time", "tenant", "at"),
    )

    tenant: str = key_column()
    unit: str = key_column()
    use_case: str = text_column()
    stage: str = text_column()
    run_id: int | None = Field(sa_type=BigInteger)
    batch: int | None
    release_version: int | None = Field(sa_type=BigInteger)
    process: str = text_column()
    tier: str = text_column()
    at: datetime = time_column(default=True)
    cpu_s: float = _number(default=False)
    wall_s: float = _number(default=False)
    peak_mb: float = _number()
    rows_in: int = _number(BigInteger)
    rows_out: int = _number(BigInteger)
    bytes_in: int = _number(BigInteger)
    bytes_out: int = _number(BigInteger)
    models_trained: int = _number(BigInteger)
    models_reused: int = _number(BigInteger)
    requests: int = _number(BigInteger)


class ProcessRow(SQLModel, table=True):
    """One row per process that works, or worked, for one tenant: what the operating system had counted when it was
    last read. What its units do not explain is its start and what they share, or, where it was killed or failed, waste.
    """

    __tablename__ = "processes"
    __table_args__ = (belongs_to("tenants", "tenant"), Index("processes_by_time", "tenant", "read_at"))

    tenant: str = key_column()
    process: str = key_column()
    use_case: str = text_column()
    job_id: int | None = Field(sa_type=BigInteger)
    tier: str = text_column()
    started_at: datetime = time_column(default=True)
    read_at: datetime = time_column(default=True)
    ended: str | None = text_column()
    cpu_s: float = _number()
    peak_mb: float = _number()


class StoredRow(SQLModel, table=True):
    """One row per use case, place (`lake`, `models`, `database`) and change: bytes that it holds from then on."""

    __tablename__ = "stored"
    __table_args__ = (belongs_to("tenants", "tenant"),)

    tenant: str = key_column()
    use_case: str = key_column()
    place: str = key_column()
    at: datetime = Field(primary_key=True, sa_type=time_column().sa_type)
    bytes: int = Field(sa_type=BigInteger)


class MembershipRow(SQLModel, table=True):
    """One row per change of tier: which one a tenant is in from then on."""

    __tablename__ = "memberships"
    __table_args__ = (belongs_to("tenants", "tenant"),)

    tenant: str = key_column()
    since: datetime = Field(primary_key=True, sa_type=time_column().sa_type)
    tier: str = text_column()


class OverheadRow(SQLModel, table=True):
    """One row per process that serves all tenants (`part` says which: `prefect`, `postgres`, `worker`, `api` …) and
    reading: what it used since the one before."""

    __tablename__ = "overhead"

    process: str = key_column()
    at: datetime = Field(primary_key=True, sa_type=time_column().sa_type)
    part: str = text_column()
    cpu_s: float = _number(default=False)
    wall_s: float = _number(default=False)
    peak_mb: float = _number()
