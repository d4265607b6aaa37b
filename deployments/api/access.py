"""`/v1/key` and `/v1/audit`: what a key is good for, and what was done to whom by whom."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from deployments.api.auth import AdminsSpace, Reader
from deployments.api.parameters import Text
from deployments.api.problems import documented
from deployments.api.service import TheService
from tasks.domain.access import Role
from tasks.domain.contract import Frozen

router = APIRouter(tags=["access"])


class KeyInfo(Frozen):
    """What a key is good for."""

    tenant: str = Field(description="for whom it acts")
    key_id: str
    name: str
    role: Role
    expires_at: datetime | None = Field(description="null: when it is revoked")


class AuditEntry(Frozen):
    """Who did what, when, from where, and how it ended."""

    number: int = Field(description="counts your entries, from 1")
    at: datetime
    action: str = Field(examples=["upload", "key.create", "release.promote"])
    outcome: str = Field(description="`done`, `refused` or `failed`")
    actor: str | None = Field(examples=["key:3f9c2d71a04be586", "operator:root", "run:promotion"])
    origin: str | None = Field(examples=["api 192.0.2.7", "cli", "flow"])
    details: dict[str, Any] | None


class AuditPage(Frozen):
    """Entries, the newest first."""

    entries: tuple[AuditEntry, ...] = Field(description="at most `limit`")
    before: int | None = Field(description="ask with this for the next page; null on the last")


@router.get("/v1/key", summary="What is this key good for?", responses=documented(401, 403, 422, 429, 503))
def key(caller: Reader) -> KeyInfo:
    """The tenant, the role and the life of the key that you present."""
    known = caller.key
    return KeyInfo(
        tenant=caller.tenant, key_id=known.key_id, name=known.name, role=known.role, expires_at=known.expires_at
    )


@router.get("/v1/audit", summary="Who did what", responses=documented(401, 403, 404, 422, 429, 503))
def audit(
    service: TheService,
    space: AdminsSpace,
    since: Annotated[
        AwareDatetime | None, Query(description="Not older than this.", examples=["2026-11-01T00:00:00Z"])
    ] = None,
    action: Annotated[Text | None, Query(description="Only of this kind.", examples=["upload"])] = None,
    before: Annotated[
        int | None, Query(ge=1, lt=2**63, description="Only below this number: `before` of a page.", examples=[51])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="So many at most.", examples=[50])] = 50,
) -> AuditPage:
    """Your tenant's entries in the audit, the newest first."""
    found = service.audit().own_entries(space.tenant.id, since=since, action=action, before=before, limit=limit + 1)
    entries = tuple(AuditEntry.model_validate(row) for row in found[:limit])
    return AuditPage(entries=entries, before=entries[-1].number if len(found) > limit else None)
