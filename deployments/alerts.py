"""What the operator's block (`ORCHARD_ALERT_BLOCK`) is told: runs that failed or crashed, budgets that were reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infra.settings import Settings
from tasks.domain.errors import InvalidDefinition
from tasks.domain.events import BUDGET_EXCEEDED
from tasks.domain.job import JobKind

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ALERT, BUDGET_ALERT = "orchard: a run failed", "orchard: a budget was reached"
VERIFICATION = "verification"
"""The deployment whose failure means that tenants are not kept apart."""
ALERTED = (*JobKind, VERIFICATION, "retention")
"""Stages whose failures are told."""

SUBJECT = "Orchard: {{ flow.name }} of {{ flow_run.parameters.tenant or 'all' }} {{ flow_run.state.name | lower }}"
BODY = """\
tenant: {{ flow_run.parameters.tenant or 'all' }}
stage: {{ flow.name }}
cause: {{ flow_run.state.message }}
run: {{ flow_run | ui_url }}
try: orchard receipts {{ flow_run.parameters.tenant }}; it is tried again by itself if that can help
"""

BUDGET_SUBJECT = "Orchard: {{ event.payload.level }} limit of {{ event.payload.tenant or 'the platform' }} reached"
BUDGET_BODY = """\
tenant: {{ event.payload.tenant or 'all' }}
use_case: {{ event.payload.use_case or 'all' }}
level: {{ event.payload.level }}
cause: {{ event.payload.spent }} of {{ event.payload.limit }} {{ event.payload.currency }}, {{ event.payload.about }}
try: orchard budgets list; at the hard limit, work waits until it is raised
"""


def provide_alerts(client: SyncPrefectClient, settings: Settings) -> Iterator[str]:
    """Makes Prefect's automations those that are wanted; says what changed, a line each."""
    from prefect.events.schemas.automations import AutomationCore

    slug = settings.alert_block
    wanted = {} if slug is None else {each["name"]: each for each in _automations(client, slug)}
    for name in (ALERT, BUDGET_ALERT):
        there = next(iter(client.read_automations_by_name(name)), None)
        if name not in wanted:
            if there is not None:
                client.delete_automation(there.id)
                yield f"automation {name!r}: removed, no block is set"
            continue
        automation = AutomationCore.model_validate(wanted[name])
        if there is None:
            client.create_automation(automation)
            yield f"automation {name!r}: new, tells {slug}"
            continue
        known = AutomationCore.model_validate(there.model_dump())
        if known.model_dump(exclude={"trigger": {"id"}}) != automation.model_dump(exclude={"trigger": {"id"}}):
            client.update_automation(there.id, automation)
            yield f"automation {name!r}: changed, tells {slug}"


def _automations(client: SyncPrefectClient, slug: str) -> list[dict[str, Any]]:
    kind, _, name = slug.partition("/")
    try:
        block = client.read_block_document_by_name(name, kind)
    except Exception as error:
        raise InvalidDefinition(
            f"Prefect has no block {slug!r}",
            expected="type/name of a block, such as slack-webhook/ops",
            found=str(error)[:200],
            hint="make it in Prefect's UI under Blocks, or unset ORCHARD_ALERT_BLOCK",
        ) from error

    def telling(subject: str, body: str) -> list[dict[str, Any]]:
        if kind == "webhook":
            return [{"type": "call-webhook", "block_document_id": block.id, "payload": _as_json(subject, body)}]
        return [{"type": "send-notification", "block_document_id": block.id, "subject": subject, "body": body}]

    at_once = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0}
    return [
        {
            "name": ALERT,
            "description": "A run of a tenant's, the daily retention, or the proof of isolation, failed or crashed.",
            "trigger": {
                **at_once,
                "expect": ["prefect.flow-run.Failed", "prefect.flow-run.Crashed"],
                "match": {"prefect.resource.id": "prefect.flow-run.*"},
                "match_related": {
                    "prefect.resource.id": [f"prefect.tag.stage:{stage}" for stage in ALERTED],
                    "prefect.resource.role": "tag",
                },
                "for_each": ["prefect.resource.id"],
            },
            "actions": telling(SUBJECT, BODY),
        },
        {
            "name": BUDGET_ALERT,
            "description": "So much was spent that it is to be told, or that work has stopped.",
            "trigger": {**at_once, "expect": [BUDGET_EXCEEDED], "for_each": ["prefect.resource.id"]},
            "actions": telling(BUDGET_SUBJECT, BUDGET_BODY),
        },
    ]


def _as_json(subject: str, body: str) -> str:
    """A template whose result is JSON, whatever the values hold."""
    lines = [line.split(": ", 1) for line in body.strip().splitlines()]
    fields = [f'"{name}": {{{{ ({_expression(text)}) | tojson }}}}' for name, text in [["subject", subject], *lines]]
    return "{" + ", ".join(fields) + "}"


def _expression(text: str) -> str:
    """A template as one expression: its pieces joined by `~`."""
    pieces = []
    for number, part in enumerate(text.replace("}}", "{{").split("{{")):
        pieces.append(f"({part.strip()})" if number % 2 else repr(part))
    return " ~ ".join(piece for piece in pieces if piece != "''")
