"""Ports for servers that tests start: each test process has its own, as several may run side by side."""

from __future__ import annotations

import os


def own_port(base: int) -> int:
    """`base`, moved by ten per test process; whoever starts a server there takes the next free one above it."""
    return base + 10 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
