"""Who fails to authenticate too often is not listened to for a while.

It keeps a flood of wrong keys off the database. Guessing is hopeless without it: a key has 256 random bits.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

FAILURES = 20
WITHIN_S = 60.0
FIRST_S, LONGEST_S = 60.0, 900.0
"""How long an address is locked out: for a minute, then twice as long each time, up to a quarter of an hour."""

MAX_KEPT = 10_000
"""So many addresses are remembered; the one that failed longest ago makes way."""


@dataclass
class _Record:
    """What is known of one address; times by the clock, in seconds."""

    failures: deque[float]
    lockouts: int = 0
    until: float = 0.0


class Lockouts:
    """Counts failures per client address, and per network of 64 bits where it is IPv6: one machine has all of those."""

    def __init__(self, failures: int = FAILURES, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = failures, clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """For how long nothing from there is looked at; 0 when it is."""
        with self._lock:
            record = self._records.get(network_of(address))
            return max(0.0, record.until - self._clock()) if record is not None else 0.0

    def failed(self, address: str) -> float:
        """Notes a failure. Returns how long the lock-out is that begins with it; 0 when none does."""
        now, network = self._clock(), network_of(address)
        with self._lock:
            record = self._records.pop(network, None) or _Record(deque(maxlen=self._limit))
            self._records[network] = record
            if len(self._records) > MAX_KEPT:
                self._records.popitem(last=False)
            if now >= record.until + LONGEST_S:  # it was calm for long enough
                record.lockouts = 0
            record.failures.append(now)
            while record.failures[0] <= now - WITHIN_S:
                record.failures.popleft()
            if len(record.failures) < self._limit or now < record.until:
                return 0.0
            record.failures.clear()
            seconds = min(LONGEST_S, FIRST_S * 2.0**record.lockouts)
            record.lockouts += 1
            record.until = now + seconds
            return seconds


def network_of(address: str) -> str:
    """What one client cannot change about its address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
