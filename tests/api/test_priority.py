"""The event loop comes first while it has little to do, and takes its turns while it is busy."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from deployments.api.priority import EVERY_S, keep_first
from tests.rights import may_be_real_time

pytestmark = pytest.mark.skipif(not may_be_real_time(), reason="needs CAP_SYS_NICE")


def is_first() -> bool:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR


async def busy_until(first: bool, pause_s: float) -> None:
    """Computes, and pauses for so long in between, until the loop is first or is no more; fails where it stays."""
    ends = time.monotonic() + 20 * EVERY_S
    while is_first() != first:
        assert time.monotonic() < ends
        computes = time.monotonic() + EVERY_S / 10
        while time.monotonic() < computes:
            pass
        await asyncio.sleep(pause_s)


async def loop() -> list[bool]:
    seen = [is_first()]
    keeper = asyncio.create_task(keep_first())
    await asyncio.sleep(0)
    seen.append(is_first())
    await busy_until(first=False, pause_s=0)
    seen.append(is_first())
    await busy_until(first=True, pause_s=EVERY_S / 2)
    seen.append(is_first())
    keeper.cancel()
    with suppress(asyncio.CancelledError):
        await keeper
    return seen


def test_it_comes_first_unless_it_is_busy() -> None:
    with ThreadPoolExecutor(1) as pool:  # a thread that is gone afterwards, with its priority
        assert pool.submit(lambda: asyncio.run(loop())).result() == [False, True, False, True]


def test_many_of_them_leave_as_much_of_the_cores_as_one() -> None:
    async def half_busy() -> None:
        keeper = asyncio.create_task(keep_first(4 * len(os.sched_getaffinity(0))))
        await asyncio.sleep(0)
        assert is_first()
        await busy_until(first=False, pause_s=EVERY_S / 5)  # a third of a core: fine for one loop
        keeper.cancel()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(half_busy())).result()
