"""Waiting until nobody works for a tenant any more.

Its state must say so first: who holds a lock by then saw it active, and who asks for one later is refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import func, select

from infra.database.connect import session
from infra.database.uploads import INTAKE, lock_key
from tasks.domain.errors import Busy

LOOK_S = 0.2


def wait_until_still(url: str, tenant: str, use_cases: Sequence[str], timeout_s: float) -> None:
    """Returns when no run and no upload of the tenant is under way. `url` is the operator's, of the database that has
    the tenant's runs. Raises `Busy` for what does not end in time."""
    deadline = time.monotonic() + timeout_s
    with session(url) as connection:
        for use_case in (INTAKE, *use_cases):
            key = lock_key(tenant, use_case)
            while not connection.scalar(select(func.pg_try_advisory_lock(key))):
                if time.monotonic() > deadline:
                    raise Busy(
                        f"a run still works on {tenant}.{use_case}"
                        if use_case
                        else f"an upload of {tenant} still comes",
                        expected=f"that it ends within {timeout_s:.0f} s",
                        hint="stop its process, or wait, and call again",
                    )
                time.sleep(LOOK_S)  # a lock that is waited for would make others wait for it too
            connection.execute(select(func.pg_advisory_unlock(key)))
