"""How flows run their mapped tasks: on a bounded pool of threads here, on Dask or Ray by setting elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from prefect.context import SettingsContext, get_settings_context
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import opaque, unmapped

from flows.artifacts import Bar


def threads() -> TaskRunner[PrefectFuture[Any]]:
    """A pool of `ORCHARD_WORKERS` threads, by default one per core; Prefect's own default is unbounded."""
    runner: Any = ThreadPoolTaskRunner(max_workers=int(os.environ.get("ORCHARD_WORKERS") or os.cpu_count() or 2))
    return cast(TaskRunner[PrefectFuture[Any]], runner)


def whole(value: object) -> Any:
    """A parameter that Prefect takes as it is, and does not walk through in search of futures: that takes 7 ms for a
    tenant, 0.15 s for a thousand verdicts."""
    return opaque(value)


def shared(value: object) -> Any:
    """A parameter that all mapped batches share, taken as it is."""
    return unmapped(whole(value))


def watch(futures: Sequence[PrefectFuture[Any]], what: str) -> None:
    """Waits for mapped batches, with a progress bar on the run's page; raises the error of the first that failed, once
    all others have ended."""
    bar = Bar(what, len(futures)) if len(futures) > 1 else None
    for done, future in enumerate(as_completed(list(futures)), start=1):
        future.wait()
        if bar is not None:
            bar.moved(done)
    for future in futures:
        future.result()


@contextmanager
def without_heartbeats() -> Iterator[None]:
    """Flows of this block have no heartbeat thread, which on leaving a flow sleeps out its second (3.8.8 measured 1.08
    s per flow with it, 0.18 s without); the database, not a heartbeat, tells which runs are dead."""
    context = get_settings_context()
    flows = context.settings.flows.model_copy(update={"heartbeat_frequency": None})
    settings = context.settings.model_copy(update={"flows": flows})
    with SettingsContext(profile=context.profile, settings=settings):
        yield


@contextmanager
def in_this_process() -> Iterator[None]:
    """For flows that a person waits for: no run logs on the terminal. An error reaches the person as a message, its
    traceback is in Prefect's UI."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).propagate = False  # their own handler sends them to the server
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # at exit it warns that it is about to finish its work
    with without_heartbeats():
        yield
