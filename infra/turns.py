"""Who comes first where processes share a machine's cores: who answers requests before who computes for minutes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

NICENESS = 10
"""Of who gives way, among the processes of its session, or of its cgroup."""

SESSION_NICENESS = 19
"""Of its session as a whole: where Linux groups processes by session (`sched_autogroup_enabled`), the niceness of a
process says nothing to those of other sessions; see sched(7), "The autogroup feature"."""

PRIORITY = 1
"""The lowest of the real-time ones, which come before all that are not."""


def give_way() -> None:
    """Lets all others go first, from now on. This process becomes a session of its own, if it leads no group yet."""
    os.nice(NICENESS)
    with suppress(OSError):  # it leads one already, or a group
        os.setsid()
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # this is no Linux, or one without groups
            Path("/proc/self/autogroup").write_text(f"{SESSION_NICENESS}\n")


def come_first(first: bool) -> bool:
    """Lets this thread, but none that it starts, go before all that computes, or in its turn again; whether the system
    allows it.

    A thread that waits for requests is then woken at once, where it would have to wait for the end of another's turn,
    for milliseconds. Linux allows it with CAP_SYS_NICE or RLIMIT_RTPRIO. Nobody should be first and busy: see
    `deployments.api.priority`.
    """
    if sys.platform != "linux":
        return False
    policy, priority = (os.SCHED_RR, PRIORITY) if first else (os.SCHED_OTHER, 0)
    try:
        os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError:
        return False
    return True
