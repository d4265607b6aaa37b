"""What a failed flow leaves behind: its cause, in the receipts of its tenant."""

from __future__ import annotations

from typing import Any

from flows.space import open_space
from tasks.domain.errors import Busy, DatabaseUnavailable, OrchardError, OverBudget, Superseded
from tasks.domain.run import RunStatus


def record_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook for a failed flow. A stage's run is marked as failed; a pipeline notes the cause at its upload,
    which keeps its status, so that `orchard run` takes it up again."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, Busy | Superseded | DatabaseUnavailable):  # another run's work, or nothing can be written down
        return
    cause = str(error) if isinstance(error, OrchardError) else f"{type(error).__name__}: {error}"
    asked = flow_run.parameters
    records = open_space(asked["tenant"]).records
    if flow.name == "pipeline":
        records.update_upload(asked["upload_id"], error=cause)
        return
    if isinstance(error, OverBudget):  # its run was stopped, or has not begun
        return
    use_case = asked.get("use_case") or records.upload(asked["upload_id"]).use_case
    for run in records.runs(use_case, flow.name)[:1]:
        if run.status is RunStatus.RUNNING:
            records.fail_run(run, cause)
