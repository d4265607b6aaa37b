"""What the system lets these tests do."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor


def may_be_real_time() -> bool:
    """Whether threads may take a real-time priority. Root may not everywhere: containers lack CAP_SYS_NICE."""

    def try_it() -> bool:
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(1) as pool:  # a thread that is gone afterwards, with its priority
        return sys.platform == "linux" and pool.submit(try_it).result()
