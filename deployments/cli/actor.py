"""Who types the commands, for the audit."""

from __future__ import annotations

import getpass

from infra.database.audit import Actor, Audit, Witness
from infra.database.cluster import Cluster


def operator_here() -> Actor:
    """The user of this machine who runs the command."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = "unknown"
    return Actor(who=f"operator:{name}", origin="cli")


def witness(cluster: Cluster) -> Witness:
    """The audit of what they do."""
    return Witness(Audit(cluster), operator_here())


def tell_reading(cluster: Cluster, tenant: str, use_case: str, what: str, rows: int) -> None:
    """Tells the audit that they look at a tenant's data. To be called before it is shown: what the audit does not know
    of is not shown."""
    witness(cluster).record("data.read", "done", tenant=tenant, use_case=use_case, what=what, rows=rows)
