"""How a run's process gives way to the API and the servers on the same machine."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress

NICENESS = 10
"""Of runs: where they share a machine with the API and the servers, those are answered first."""

TURN_NS = 500_000
"""So long a run keeps a core before whoever has woken up gets it; the kernel's own turns are some milliseconds."""

_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
"""Number of the system call `sched_setattr`, which the C library has no function for."""


class _Attributes(ctypes.Structure):
    """`struct sched_attr` of Linux, in its first version."""

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


def give_way() -> None:
    """Makes this process, and what it starts, take its turns last and, on Linux 6.12 and later, in short ones."""
    os.nice(NICENESS)
    number = _SET_ATTRIBUTES.get(platform.machine())
    if platform.system() == "Linux" and number is not None:
        attributes = _Attributes(size=ctypes.sizeof(_Attributes), nice=os.nice(0), runtime=TURN_NS)
        with suppress(OSError):  # it is an offer: without it, turns are longer
            ctypes.CDLL(None, use_errno=True).syscall(number, 0, ctypes.byref(attributes), 0)
