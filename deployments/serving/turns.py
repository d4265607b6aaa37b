"""How the API gets a core at once when a request comes, while runs keep all of them busy."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress

TURN_NS = 100_000
"""The shortest turn that the kernel has. Whoever takes short ones interrupts, when it wakes up, one that takes longer
ones, and does not wait for milliseconds until that one's turn is over."""

_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
"""Number of the system call `sched_setattr`, which the C library has no function for."""


class _Attributes(ctypes.Structure):
    """`struct sched_attr` of Linux, in its first version (sched_setattr(2))."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def take_short_turns() -> None:
    """Has this thread, and those that it starts, take short turns, where the kernel offers them (Linux 6.12 and later);
    elsewhere nothing changes."""
    number = _SET_ATTRIBUTES.get(platform.machine())
    if platform.system() == "Linux" and number is not None:
        attributes = _Attributes(size=ctypes.sizeof(_Attributes), nice=os.nice(0), runtime=TURN_NS)
        with suppress(OSError):
            ctypes.CDLL(None).syscall(number, 0, ctypes.byref(attributes), 0)
