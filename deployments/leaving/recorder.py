"""Waiting until Prefect has recorded what it was told of task runs.

It is told by events, and records them later, several in one transaction. One whose flow run is gone by then fails, and
takes those with it that are in the same transaction: other tenants'. Events are recorded in the order in which they
came, so when the last one is, all are.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound

from tasks.domain.errors import Retryable

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

NAME = "orchard-erasure"
LOOK_S = 0.2
RECORDED_S, TOLD_AGAIN_S = 120, 15
"""So long it may take; an event may get lost, so another one is sent in between."""


def await_recorder(client: SyncPrefectClient) -> None:
    """Tells Prefect of a task run of its own, and waits until that is recorded. Raises `Retryable`."""
    EventsWorker.drain_all(timeout=RECORDED_S, at_exit=False)  # what this process has to tell comes before
    deadline = time.monotonic() + RECORDED_S
    while time.monotonic() < deadline:
        told = uuid4()
        cast(Any, client).request("POST", "/events", json=[_event(told)])
        told_at = time.monotonic()
        while time.monotonic() < told_at + TOLD_AGAIN_S:
            if _is_recorded(client, told):
                client.delete_task_run(told)
                return
            time.sleep(LOOK_S)
    raise Retryable(
        "Prefect does not record what becomes of task runs",
        expected=f"that it does within {RECORDED_S} s",
        hint="see `orchard logs prefect`, and call again",
    )


def _is_recorded(client: SyncPrefectClient, task_run: UUID) -> bool:
    try:
        client.read_task_run(task_run)
    except ObjectNotFound:
        return False
    return True


def _event(task_run: UUID) -> dict[str, Any]:
    """The event of a task run without a flow that has completed, as Prefect's engine sends it."""
    state: dict[str, Any] = {
        "type": "COMPLETED",
        "name": "Completed",
        "message": None,
        "state_details": {},
        "data": None,
    }
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.task-run.Completed",
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{task_run}",
            "prefect.resource.name": NAME,
            "prefect.orchestration": "client",
            "prefect.state-name": "Completed",
            "prefect.state-type": "COMPLETED",
        },
        "related": [],
        "payload": {
            "intended": {"from": None, "to": "COMPLETED"},
            "initial_state": None,
            "validated_state": state,
            "task_run": {"name": NAME, "task_key": NAME, "dynamic_key": str(task_run), "run_count": 1},
        },
    }
