"""Peak memory of a run's processes, the servers beside it left out."""

from __future__ import annotations

import threading
from collections.abc import Collection

import psutil

INTERVAL_S = 0.25


class PeakMemory:
    """Samples this process and its children while the block runs, but for the trees of the processes in `without`.

    `rss_bytes` counts pages of memory-mapped files that the system may drop at any time; `private_bytes` (USS) does not
    count what processes share.
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
            rss = pss = 0
            for process in self._family(psutil.Process()):
                try:
                    info = process.memory_full_info()
                except psutil.Error:  # it has just ended
                    continue
                rss += info.rss
                pss += getattr(info, "pss", info.rss)
            self.rss_bytes, self.pss_bytes = max(self.rss_bytes, rss), max(self.pss_bytes, pss)

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
