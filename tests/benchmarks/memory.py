"""Peak memory of a run's processes, the servers beside it left out."""

from __future__ import annotations

import threading
from collections.abc import Collection

import psutil

INTERVAL_S = 0.1


class PeakMemory:
    """Samples this process and its children while the block runs, but for the trees of the processes in `without`.

    `rss_bytes` counts pages of memory-mapped files too, which the system may drop at any time; `pss_bytes`, taken at
    the peaks of the former, counts what processes share only once.
    """

    def __init__(self, without: Collection[int]) -> None:
        self._without = set(without)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peak-memory")
        self.rss_bytes = self.pss_bytes = 0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            family = self._family(psutil.Process())
            rss = sum(_bytes(process, "rss") for process in family)
            if rss > self.rss_bytes:
                self.rss_bytes = rss
                self.pss_bytes = max(self.pss_bytes, sum(_bytes(process, "pss") for process in family))

    def _family(self, process: psutil.Process) -> list[psutil.Process]:
        found = [process]
        try:
            children = process.children()
        except psutil.Error:
            return found
        for child in children:
            if child.pid not in self._without:
                found += self._family(child)
        return found


def _bytes(process: psutil.Process, kind: str) -> int:
    try:
        info = process.memory_info() if kind == "rss" else process.memory_full_info()
    except psutil.Error:  # it has just ended
        return 0
    return getattr(info, kind, info.rss)  # only Linux knows PSS
