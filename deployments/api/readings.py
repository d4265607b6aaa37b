"""Who looks at which data, for the audit: once an hour and not once a page, so that reading costs next to nothing."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from infra.database.audit import Actor, Witness

WITHIN_S = 3600
MAX_KEPT = 10_000


class Readings:
    """Remembers what this process has told of the current hour; other processes tell the same entry, which is one."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._told: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def tell(self, witness: Callable[[Actor], Witness], by: Actor, tenant: str, use_case: str, what: str) -> None:
        """To be called before anything is shown: what the audit does not know of is not shown. Raises
        `DatabaseUnavailable`."""
        hour = int(self._clock() // WITHIN_S)
        once = f"read/{tenant}/{by.who}/{by.origin}/{use_case}/{what}/{hour}"
        with self._lock:
            if once in self._told:
                return
        witness(by).record("data.read", "done", tenant=tenant, once=once, use_case=use_case, what=what)
        with self._lock:
            self._told[once] = None
            if len(self._told) > MAX_KEPT:
                self._told.popitem(last=False)
