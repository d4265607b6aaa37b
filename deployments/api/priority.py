"""Requests first: the event loop goes before all that computes, as long as it is not busy all the time itself."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from infra.turns import come_first

EVERY_S = 0.25
"""So often it is looked at. Linux itself stops a real-time thread that was busy for 0.95 s, for 0.05 s."""

BUSY = 0.5
"""Share of a core. A loop that uses more takes its turns: requests then wait for each other, not for others' turns, and
so much of each core at least stays with the database, with those who load models, and with runs. Where there are more
loops than cores, all of them together use no more of the cores than that."""


async def keep_first(loops: int = 1) -> None:
    """Sees to it for the event loop that it runs on, one of so many, until cancelled; ends where the system does not
    allow it."""
    first, busy, most = False, 0.0, BUSY
    if sys.platform == "linux":
        most = BUSY * min(1.0, len(os.sched_getaffinity(0)) / loops)
    while True:
        if first != (busy < most):
            first = not first
            if not come_first(first):
                return
        cpu_s, wall_s = time.thread_time(), time.monotonic()
        await asyncio.sleep(EVERY_S)
        busy = (time.thread_time() - cpu_s) / (time.monotonic() - wall_s)
