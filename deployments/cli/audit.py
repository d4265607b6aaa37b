"""`orchard audit`: who did what to which tenant, and whether the record of it is whole."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.actor import witness
from deployments.cli.output import Json, Limit, complain_of, console, note, print_json, records_of, show
from deployments.cli.times import moment
from deployments.platform import running_platform
from infra.settings import load_settings

app = typer.Typer(help="Look through the audit, export it, and check that nobody changed it.", no_args_is_help=True)

Whose = Annotated[str, typer.Argument(metavar="TENANT", help="All tenants, and the platform itself, without it.")]


@app.command("list", epilog="Example: orchard audit list ua --since 24h --action upload")
def list_entries(
    tenant: Whose = "",
    since: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="A time such as 2026-11-01, or 24h.")
    ] = None,
    action: Annotated[str, typer.Option(help="Only entries of this kind, such as key.create.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Entries, the newest first. Of a tenant that was erased: what was done, and no more."""
    from infra.database.audit import Audit

    with running_platform(load_settings()) as platform:
        found = Audit(platform.cluster).entries(tenant or None, since=since, action=action or None, limit=limit)
    if not as_json:
        found = found.drop(columns="subject")
        found["details"] = [_words(details) for details in found["details"]]
        found["at"] = found["at"].dt.strftime("%Y-%m-%d %H:%M:%S")
    show(records_of(found), as_json, empty="no entries")


@app.command(epilog="Example: orchard audit export --to audit.jsonl")
def export(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", dir_okay=False, help="A file of JSON lines.")],
    tenant: Whose = "",
) -> None:
    """Write all entries into a file, an object per line, the oldest first, with their MACs. It is an entry itself."""
    with running_platform(load_settings()) as platform:
        told = witness(platform.cluster)
        told.record("audit.export", "done", tenant=tenant or None)
        partial, count = to.with_name(f".{to.name}.part"), 0
        with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
            for entry in told.audit.exported(tenant or None):
                file.write(json.dumps(entry, default=str) + "\n")
                count += 1
        partial.replace(to)
    note(f"{count:,} entries are in {to}")


@app.command(epilog="Example: orchard audit verify")
def verify(
    anchor: Annotated[
        str, typer.Option(metavar="ENTRY:MAC", help="What an earlier `verify` printed: shows an end that was cut off.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check every entry; exits with 1 when one was changed. Prints the last one's anchor, to be kept elsewhere."""
    from infra.database.audit import Audit
    from infra.database.audit_chain import Anchor

    kept = Anchor.parse(anchor) if anchor else None
    with running_platform(load_settings()) as platform:
        found = Audit(platform.cluster).verify(kept)
    last = str(found.last) if found.last else None
    if as_json:
        print_json({**found.model_dump(exclude={"last"}), "anchor": last})
    else:
        console.print(f"{found.entries:,} entries are as they were written; {found.forgotten:,} of erased tenants")
        if last:
            console.print(f"anchor {last}", highlight=False, soft_wrap=True)
    if found.wrong is not None:
        complain_of(f"{found.wrong}; do next: compare with a backup: somebody changed the database past Orchard")
        raise typer.Exit(1)


def _words(details: object) -> str:
    """Details in a cell: `key_id 3f9c, role admin`."""
    if not isinstance(details, dict):
        return ""
    return ", ".join(f"{name} {_value(value)}" for name, value in details.items())


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
