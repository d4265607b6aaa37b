"""What a process uses for a tenant is read every few seconds, so that a killed run is paid for too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from infra.metering import end_shift
from infra.space import TenantSpace
from tasks.domain.errors import OrchardError, OverBudget

logger = logging.getLogger(__name__)

EVERY_S = 3.0
_shift = threading.Lock()  # a process works for one tenant at a time


@contextmanager
def metered(space: TenantSpace, job_id: int | None = None) -> Iterator[None]:
    """All that this process uses until the block ends is this tenant's; blocks inside belong to the outermost.

    What no unit of finished work explains when the process is gone was wasted; a reading is at most `EVERY_S` old.
    """
    if not _shift.acquire(blocking=False):
        yield
        return
    stop = threading.Event()
    reading = threading.Thread(target=_read, args=(space, job_id, stop), daemon=True, name="meter")
    ended = "failed"
    try:
        reading.start()
        yield
        ended = "done"
    except OverBudget:
        ended = "done"  # it stopped between batches: nothing was wasted
        raise
    finally:
        stop.set()
        reading.join()
        _tell(space, job_id, ended)
        end_shift()
        _shift.release()


def _read(space: TenantSpace, job_id: int | None, stop: threading.Event) -> None:
    _tell(space, job_id, None)
    while not stop.wait(EVERY_S):
        _tell(space, job_id, None)


def _tell(space: TenantSpace, job_id: int | None, ended: str | None) -> None:
    try:
        space.records.read_process(job_id, ended)
    except OrchardError as error:  # it is read again soon; a meter must never stop the work
        logger.warning("the meter of %s was not read: %s", space.tenant.id, error)
