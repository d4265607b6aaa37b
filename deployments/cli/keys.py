"""`orchard keys`: who may call the HTTP API, for which tenant, and what they may do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.actor import operator_here
from deployments.cli.output import Json, console, note, print_json, show
from deployments.cli.times import span
from deployments.platform import Platform, running_platform
from infra.settings import load_settings
from tasks.domain.access import Role

if TYPE_CHECKING:
    from infra.database.keys import Keys

app = typer.Typer(help="Create, list, revoke and rotate API keys.", no_args_is_help=True)

Whose = Annotated[str, typer.Argument(metavar="TENANT", help="Left out with --operator.")]
Which = Annotated[
    list[str], typer.Argument(metavar="TENANT KEY", help="The key as `list` shows it; no TENANT with --operator.")
]
Operator = Annotated[bool, typer.Option("--operator", help="An operator's key: it acts for any tenant, as admin.")]


@app.command(epilog="Example: orchard keys create ua --name nightly-export --role uploader --expires 90d")
def create(
    name: Annotated[str, typer.Option(help="What the key is for, to tell it from others.")],
    tenant: Whose = "",
    role: Annotated[
        Role | None, typer.Option(help="reader: look; uploader (default): and hand in; admin: and see to the tenant.")
    ] = None,
    expires: Annotated[
        timedelta | None, typer.Option(parser=span, metavar="SPAN", help="Such as 90d; until it is revoked without it.")
    ] = None,
    operator: Operator = False,
    as_json: Json = False,
) -> None:
    """Make a key for the HTTP API. It is shown this once: only its digest is stored."""
    whose = _whose(tenant, operator)
    if operator and role is not None:
        raise typer.BadParameter("an operator's key has every role", param_hint="--role")
    with running_platform(load_settings()) as platform:
        key_id, key = _keys(platform).create(whose, name, role or Role.UPLOADER, expires)
    _show_once(whose, key_id, key, as_json, name=name.strip())


@app.command("list", epilog="Example: orchard keys list ua")
def list_keys(tenant: Whose = "", operator: Operator = False, as_json: Json = False) -> None:
    """A tenant's keys: what they are for, what they may do, and which count no more."""
    whose = _whose(tenant, operator)
    with running_platform(load_settings()) as platform:
        keys = _keys(platform).list(whose)
    hint = f"no keys yet; orchard keys create {'--operator' if operator else tenant} --name NAME"
    aside = set() if as_json else {"tenant"}  # a person has just named it
    show([key.model_dump(mode="json" if as_json else "python", exclude=aside) for key in keys], as_json, empty=hint)


@app.command(epilog="Example: orchard keys revoke ua 3f9c2d71a04be586")
def revoke(which: Which, operator: Operator = False, as_json: Json = False) -> None:
    """Take a key back; within seconds it opens nothing. It cannot be undone."""
    whose, key_id = _which(which, operator)
    with running_platform(load_settings()) as platform:
        key = _keys(platform).revoke(whose, key_id)
    if as_json:
        print_json(key.model_dump(mode="json"))
    else:
        console.print(f"key {key.key_id} ({key.name}) of {_named(whose)} is revoked", highlight=False, markup=False)


@app.command(epilog="Example: orchard keys rotate ua 3f9c2d71a04be586 --overlap 24h")
def rotate(
    which: Which,
    overlap: Annotated[
        timedelta, typer.Option(parser=span, metavar="SPAN", help="How long the old key still counts.")
    ] = "24h",  # type: ignore[assignment]  # typer parses it
    operator: Operator = False,
    as_json: Json = False,
) -> None:
    """Make a key that takes another's place: same name, same role, as long a life. The old one soon counts no more."""
    whose, old = _which(which, operator)
    with running_platform(load_settings()) as platform:
        key_id, key = _keys(platform).rotate(whose, old, overlap)
    _show_once(whose, key_id, key, as_json, replaces=old)


def _keys(platform: Platform) -> Keys:
    from infra.database.keys import Keys

    return Keys(platform.cluster, operator_here())


def _whose(tenant: str, operator: bool) -> str | None:
    if bool(tenant) is operator:
        raise typer.BadParameter("name a tenant, or say --operator", param_hint="TENANT")
    return tenant or None


def _which(words: list[str], operator: bool) -> tuple[str | None, str]:
    if len(words) != (1 if operator else 2):
        raise typer.BadParameter("name a tenant and a key, or a key and --operator", param_hint="TENANT KEY")
    return (None, words[0]) if operator else (words[0], words[1])


def _named(tenant: str | None) -> str:
    return "the operators" if tenant is None else tenant


def _show_once(tenant: str | None, key_id: str, key: str, as_json: bool, **facts: str) -> None:
    if as_json:
        print_json({"tenant": tenant, "key_id": key_id, **facts, "key": key})
        return
    typer.echo(key)
    note(f"this is key {key_id} of {_named(tenant)}; keep it now, because it cannot be shown again")
