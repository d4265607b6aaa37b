"""Names of Orchard's events: what is emitted comes from here; a test compares it with what prefect.yaml waits for."""

from __future__ import annotations

UPLOAD_RECEIVED = "orchard.upload.received"
"""A file arrived by itself; payload: `path`, its place below the inbox."""

BUDGET_EXCEEDED = "orchard.budget.exceeded"
"""A limit was reached; payload: `level` (soft, hard), `use_case`, `period`, `about`, `spent`, `limit`, `currency`."""

FINISHED, FAILED = "finished", "failed"


def stage_event(stage: str, outcome: str) -> str:
    """`orchard.training.finished`: a stage, or a whole pipeline, came to its end."""
    return f"orchard.{stage}.{outcome}"
