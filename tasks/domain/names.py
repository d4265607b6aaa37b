"""Identifiers: what may name a tenant, a use case, a column, a partition, an upload.

The patterns are strict on purpose: an identifier becomes part of a path, a role and a registry name, so it holds
nothing that any of those would read as syntax, and no two identifiers differ by case alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote, unquote

from pydantic import StringConstraints, TypeAdapter, ValidationError

TenantId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]
UseCaseId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]
ColumnName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=63)]

SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+$", max_length=60)]
"""Without a hyphen: it follows a tenant's id, which may have some, in the name of a block."""

TENANT_WIDE = "*"
"""The partition name under which the tenant-wide model of a use case is stored."""


class Purpose(StrEnum):
    """What an upload is for."""

    HISTORY = "history"
    SCORING = "scoring"
    ACTUALS = "actuals"


class Stage(StrEnum):
    """The stages of a pipeline; one word everywhere (modules, tags, deployments, events)."""

    INGESTION = "ingestion"
    TRAINING = "training"
    PROMOTION = "promotion"
    SCORING = "scoring"
    MONITORING = "monitoring"


_TENANT_ID = TypeAdapter(TenantId)
_USE_CASE_ID = TypeAdapter(UseCaseId)


def is_tenant_id(text: str) -> bool:
    """Whether a tenant could be called so. Databases and file systems choke on some texts that none is."""
    return _fits(_TENANT_ID, text)


def is_use_case_id(text: str) -> bool:
    """Whether a use case could be called so."""
    return _fits(_USE_CASE_ID, text)


def _fits(kind: TypeAdapter[str], text: str) -> bool:
    try:
        kind.validate_python(text)
    except ValidationError:
        return False
    return True


def upload_id(tenant: str, use_case: str, purpose: Purpose, content_sha256: str) -> str:
    """Identity of an upload: the same content for the same purpose of one use case is one upload."""
    text = "\x00".join((tenant, use_case, purpose.value, content_sha256))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def partition_name(values: Mapping[str, object]) -> str:
    """Canonical name of a partition, `store=12,sku=7`: injective, because `,`, `=` and `%` are percent-encoded."""
    return ",".join(f"{key}={quote(str(value), safe=' :+-_./')}" for key, value in values.items())


def partition_values(name: str) -> dict[str, str]:
    """The inverse of `partition_name`; values come back as text."""
    return {key: unquote(value) for key, _, value in (part.partition("=") for part in name.split(","))}


def registered_model_name(tenant: str, use_case: str) -> str:
    """Name of the one registry entry of a tenant's use case."""
    return f"{tenant}.{use_case}"


def secret_block(tenant: str, secret: str) -> str:
    """Name of the Prefect block that holds a tenant's secret."""
    return f"{tenant}-{secret}"


def artifact_key(tenant: str, use_case: str, kind: str) -> str:
    """Key of an artifact on a run's page. No id has two hyphens in a row, so no key is another tenant's."""
    return f"{tenant}--{use_case}-{kind}"
