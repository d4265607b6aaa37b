"""The tables of trust: operators' keys, the audit, tenants' secrets, erasures. All are the operator's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from infra.database import job_tables as job_tables
from infra.database.tables import belongs_to, key_column, text_column, time_column

metadata = SQLModel.metadata
"""All tables: these, and those of the modules beside this one."""


class OperatorKeyRow(SQLModel, table=True):
    """One row per API key of an operator: its digest, never the key."""

    __tablename__ = "operator_keys"
    __table_args__ = (UniqueConstraint("digest"),)

    key_id: str = key_column()
    name: str = text_column()
    digest: str = text_column()
    created_at: datetime = time_column(default=True)
    expires_at: datetime | None = time_column()
    revoked_at: datetime | None = time_column()


class AuditRow(SQLModel, table=True):
    """One row per entry, numbered without a gap. It names nobody: `subject` is a keyed pseudonym of the tenant.

    `details_mac` authenticates the entry's details, which may be erased; `mac` the entry and, through it, all before.
    """

    __tablename__ = "audit"
    __table_args__ = (Index("audit_of_subject", "subject", "entry"),)

    entry: int = key_column(BigInteger)
    at: datetime = time_column()
    subject: str | None = text_column()
    action: str = text_column()
    outcome: str = text_column()
    details_mac: str = text_column()
    mac: str = text_column()


class AuditDetailRow(SQLModel, table=True):
    """Who did it, from where, and to what: the part of an entry that goes when its tenant is erased.

    `token` is random, or names what is told only once; without it nobody can guess details and check the guess.
    """

    __tablename__ = "audit_details"
    __table_args__ = (
        belongs_to("audit", "entry"),
        UniqueConstraint("token"),
        Index("audit_details_of_tenant", "tenant", "entry"),
    )

    entry: int = key_column(BigInteger)
    tenant: str | None = text_column()
    actor: str = text_column()
    origin: str = text_column()
    details: dict[str, Any] = Field(sa_type=JSONB)
    token: str = text_column()


class TenantSecretRow(SQLModel, table=True):
    """One row per tenant: the random key of its hashed personal columns; without it, none can be made again."""

    __tablename__ = "tenant_secrets"
    __table_args__ = (belongs_to("tenants", "tenant"),)

    tenant: str = key_column()
    personal_key: str = text_column()


class ErasureRow(SQLModel, table=True):
    """One row per erasure. `tenant` is null once it is complete; the certificate names the pseudonym alone."""

    __tablename__ = "erasures"

    erasure_id: str = key_column()
    tenant: str | None = text_column()
    subject: str = text_column()
    started_at: datetime = time_column(default=True)
    finished_at: datetime | None = time_column()
    steps: dict[str, Any] = Field(sa_type=JSONB)
    certificate: dict[str, Any] | None = Field(sa_type=JSONB)
