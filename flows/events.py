"""What happened, told to whoever listens: Prefect's automations, and the webhooks behind them."""

from __future__ import annotations

from typing import Any

from prefect.events import emit_event

from tasks.domain.budget import Level, Standing, money
from tasks.domain.errors import OverBudget
from tasks.domain.events import BUDGET_EXCEEDED, FAILED, FINISHED, UPLOAD_RECEIVED, stage_event

postponed: set[str] = set()
"""Runs in Prefect of this process whose job has to wait, for a budget or for another run: they have neither finished
nor failed."""


def announce_upload(path: str) -> None:
    """Says that a complete file lies in the inbox, at `tenant/use_case/purpose/name`; its trigger runs admission."""
    emit_event(
        event=UPLOAD_RECEIVED,
        resource={"prefect.resource.id": f"orchard.inbox.{path}", "prefect.resource.name": path},
        payload={"path": path},
    )


def announce_budget(standing: Standing, level: Level) -> None:
    """Says that a limit was reached."""
    budget = standing.budget
    tenant, use_case = budget.tenant or "", standing.use_case or budget.use_case or ""
    name = f"orchard.tenant.{tenant}" + (f".{use_case}" if use_case else "") if tenant else "orchard.platform"
    limit = budget.hard if level is Level.HARD else budget.soft
    emit_event(
        event=BUDGET_EXCEEDED,
        resource={"prefect.resource.id": name, "orchard.tenant": tenant, "orchard.level": level.value},
        payload={
            "level": level.value,
            "tenant": tenant or None,
            "use_case": use_case or None,
            "period": budget.period.value,
            "about": standing.about,
            "spent": money(standing.spent),
            "limit": money(limit),
            "currency": budget.currency,
        },
    )


def announce_finished(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook for a flow that completed."""
    if str(flow_run.id) not in postponed:
        _announce(flow.name, flow_run, FINISHED, state)


def announce_failed(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook for a flow that failed. One that may not spend more has not: that is told once, as such."""
    if not isinstance(state.result(raise_on_failure=False), OverBudget):
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
