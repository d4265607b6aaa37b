"""`orchard storage`: the rights that tenants' files are kept apart by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from deployments.cli.output import Json, print_json, show
from infra.settings import load_settings

app = typer.Typer(help="Look at the rights that keep tenants' files apart.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `policy` a command of its own while it is the only one."""


@app.command(epilog="Example: orchard storage policy acme --json")
def policy(
    tenant: Annotated[str, typer.Argument(help="An onboarded tenant; without it, the platform's own login.")] = "",
    as_json: Json = False,
) -> None:
    """The policy on S3 of a tenant's role, or what the platform's own login has to be granted; as JSON, the document
    itself."""
    from deployments.platform import running_platform
    from infra.isolation.roles import policy_of, policy_of_operator

    settings = load_settings()
    if not tenant:
        _print(policy_of_operator(settings), as_json)
        return
    from infra.database.operator import Operator

    with running_platform(settings) as platform:
        _print(policy_of(settings, Operator(platform.cluster).tenant(tenant)), as_json)


def _print(document: Mapping[str, Any], as_json: bool) -> None:
    """A line per statement, or the document."""
    if as_json:
        print_json(document)
        return
    parts = ("Sid", "Effect", "Action", "Resource", "Condition")
    show([{name.lower(): _text(each.get(name)) for name in parts} for each in document["Statement"]], as_json=False)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(value)
    return json.dumps(value) if isinstance(value, dict) else value or ""
