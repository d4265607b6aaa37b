"""Opening the space of one tenant: the only way in which a flow reaches infrastructure."""

from __future__ import annotations

from infra.settings import load_settings
from infra.space import TenantSpace
from infra.space import open_space as open_tenant_space


def open_space(tenant: str) -> TenantSpace:
    """The space of that tenant, by the process's settings. Raises `NotFound`."""
    return open_tenant_space(load_settings(), tenant)
