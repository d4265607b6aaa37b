"""What happened, told to whoever listens: Prefect's automations, and the webhooks behind them."""

from __future__ import annotations

from typing import Any

from prefect.events import emit_event

from tasks.domain.events import FAILED, FINISHED, UPLOAD_RECEIVED, stage_event


def announce_upload(path: str) -> None:
    """Says that a complete file lies in the inbox, at `tenant/use_case/purpose/name`; its trigger runs admission."""
    emit_event(
        event=UPLOAD_RECEIVED,
        resource={"prefect.resource.id": f"orchard.inbox.{path}", "prefect.resource.name": path},
        payload={"path": path},
    )


def announce_finished(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook for a flow that completed."""
    _announce(flow.name, flow_run, FINISHED, state)


def announce_failed(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook for a flow that failed."""
    _announce(flow.name, flow_run, FAILED, state)


def _announce(stage: str, flow_run: Any, outcome: str, state: Any) -> None:
    asked = flow_run.parameters
    tenant, use_case = asked["tenant"], asked.get("use_case")
    resource = {
        "prefect.resource.id": f"orchard.tenant.{tenant}" + (f".{use_case}" if use_case else ""),
        "orchard.tenant": tenant,
        "orchard.stage": stage,
    }
    related = [{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}]
    ids = ("upload_id", "use_case", "job_id", "attempt")
    payload = {name: asked[name] for name in ids if asked.get(name) is not None}
    if outcome == FAILED:
        payload["cause"] = str(state.message or "")[:500]
    emit_event(event=stage_event(stage, outcome), resource=resource, related=related, payload=payload)
