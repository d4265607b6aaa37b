"""The tables of what waits for its turn, and of who may ask for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Identity, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from infra.database.tables import belongs_to, key_column, text_column, time_column

metadata = SQLModel.metadata
"""All tables, these and those of `infra.database.tables`."""

OPEN = "status IN ('waiting', 'submitted', 'running')"


class JobRow(SQLModel, table=True):
    """One row per job; a job that is tried again keeps its row."""

    __tablename__ = "jobs"
    __table_args__ = (
        belongs_to("use_cases", "tenant", "use_case"),
        Index("one_job_per_upload", "tenant", "upload_id", unique=True, postgresql_where=text("upload_id IS NOT NULL")),
        Index(
            "one_waiting_job",
            "tenant",
            "use_case",
            "kind",
            unique=True,
            postgresql_where=text("upload_id IS NULL AND status = 'waiting'"),
        ),
        Index("jobs_open", "status", "tenant", "use_case", postgresql_where=text(OPEN)),
        Index("jobs_finished", "finished_at", postgresql_where=text("status = 'done'")),
    )

    tenant: str = key_column()
    job_id: int = Field(sa_column=Column("job_id", BigInteger, Identity(always=True), primary_key=True))
    use_case: str = text_column()
    kind: str = text_column()
    upload_id: str | None = text_column()
    upload_bytes: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": text("0")})
    status: str = text_column()
    requested_by: str = text_column()
    attempts: int
    tries_left: int
    tier: str | None = text_column()
    pool: str | None = text_column()
    flow_run_id: str | None = text_column()
    created_at: datetime = time_column(default=True)
    not_before: datetime = time_column(default=True)
    submitted_at: datetime | None = time_column()
    started_at: datetime | None = time_column()
    heartbeat_at: datetime | None = time_column()
    finished_at: datetime | None = time_column()
    error: str | None = text_column()
    held: str | None = text_column()


class ScheduleRow(SQLModel, table=True):
    """One row per use case and kind of job that comes by itself: when it is due next, and how far pulls have come."""

    __tablename__ = "schedules"
    __table_args__ = (belongs_to("use_cases", "tenant", "use_case"),)

    tenant: str = key_column()
    use_case: str = key_column()
    kind: str = key_column()
    due_at: datetime | None = time_column()
    watermark: dict[str, Any] | None = Field(sa_type=JSONB)


class ApiKeyRow(SQLModel, table=True):
    """One row per API key of a tenant: its digest, never the key."""

    __tablename__ = "api_keys"
    __table_args__ = (belongs_to("tenants", "tenant"), UniqueConstraint("digest"))

    tenant: str = key_column()
    key_id: str = key_column()
    name: str = text_column()
    role: str = text_column()
    digest: str = text_column()
    created_at: datetime = time_column(default=True)
    expires_at: datetime | None = time_column()
    revoked_at: datetime | None = time_column()
