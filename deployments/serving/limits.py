"""How many requests a tenant may make: a bucket of tokens each, which fills at the tier's rate."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

BURST_S = 2.0
"""A tenant that was silent may send the requests of so many seconds at once."""

MAX_TENANTS = 10_000


class RateLimits:
    """The buckets of all tenants. They are of this process: with several, each has its share of the rate."""

    def __init__(self, processes: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._processes, self._clock = processes, clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def wait_s(self, tenant: str, per_second: float) -> int:
        """0 when the request may pass, and it counts; else the whole seconds after which one will."""
        rate = per_second / self._processes
        now, most = self._clock(), max(1.0, rate * BURST_S)
        with self._lock:
            tokens, at = self._buckets.pop(tenant, (most, now))
            tokens = min(most, tokens + (now - at) * rate)
            passes = tokens >= 1
            self._buckets[tenant] = (tokens - 1 if passes else tokens, now)
            if len(self._buckets) > MAX_TENANTS:
                self._buckets.popitem(last=False)
        return 0 if passes else max(1, math.ceil((1 - tokens) / rate))

    def give_back(self, tenant: str) -> None:
        """The request that passed will be counted when it is tried again."""
        with self._lock:
            if tenant in self._buckets:
                tokens, at = self._buckets[tenant]
                self._buckets[tenant] = (tokens + 1, at)
