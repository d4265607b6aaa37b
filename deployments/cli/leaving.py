"""`orchard tenants export`, `erase`, `certificate`: a tenant leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.actor import operator_here
from deployments.cli.output import Json, console, note, print_json, show
from deployments.platform import running_platform
from infra.settings import load_settings
from tasks.domain.errors import InvalidDefinition, NotFound

certificates = typer.Typer(help="Certificates of erasures: list, show and verify them.", no_args_is_help=True)


def register(tenants: typer.Typer) -> None:
    """Adds the commands of this module to `orchard tenants`."""
    tenants.command(epilog="Example: orchard tenants export acme --to ./acme-export --csv")(export)
    tenants.command(epilog="Example: orchard tenants erase acme --export-first ./acme-export --certificate .")(erase)
    tenants.add_typer(certificates, name="certificate")


def export(
    tenant: str,
    to: Annotated[Path, typer.Option(help="An empty folder, or that of an export that was cut off.")],
    csv: Annotated[bool, typer.Option("--csv", help="Tables as CSV too, safe to open in a spreadsheet.")] = False,
    history: Annotated[bool, typer.Option("--history", help="The Delta tables too, with all their versions.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Make an export of this tenant anew that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Hand over all that Orchard has of a tenant, in open formats. An export that was cut off goes on when it is asked
    for again."""
    from deployments.leaving.export import export as export_tenant

    with running_platform(load_settings()) as platform:
        done = export_tenant(platform, tenant, to, operator_here(), note, csv=csv, history=history, force=force)
    if as_json:
        print_json(done._asdict())
    else:
        console.print(
            f"{done.files:,} files ({done.bytes / 1e6:,.1f} MB) of {tenant} are in {done.folder}; see README.md there",
            highlight=False,
            soft_wrap=True,
        )


def erase(
    tenant: str,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for the tenant's id.")] = False,
    export_first: Annotated[
        Path | None, typer.Option(help="Hand over all it has into this folder, before any of it is removed.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Write the certificate, made out to the tenant, into this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove all that Orchard has of a tenant, search for what may be left, and certify it. It cannot be undone. An
    erasure that was cut off goes on when it is asked for again."""
    from deployments.leaving.certificate import certificates_folder, made_out_to, page, write

    settings = load_settings()
    with running_platform(settings, prefect=True, report=note) as platform:
        # not before: Prefect reads its address when it is imported
        from deployments.leaving.erase import erase as erase_tenant

        if not yes:
            note(f"this removes all data, models, predictions and keys of {tenant}, for good")
            if typer.prompt("type the tenant's id to go on", err=True) != tenant:
                raise InvalidDefinition("that is another tenant's id: nothing was removed", expected=tenant)
        erasure = erase_tenant(platform, tenant, operator_here(), note, export_first)
    document = erasure.certificate
    assert document is not None
    made_out = made_out_to(document, tenant, settings.secret_key)
    written = [certificates_folder(settings) / f"{erasure.erasure_id}.json"]
    if certificate is not None:
        written.append(write(made_out, certificate, f"erasure-{tenant}").json)
    if as_json:
        print_json({**made_out, "files": [str(path) for path in written]})
        return
    typer.echo(page(made_out))
    for path in written:
        note(f"written to {path}")


@certificates.command("list", epilog="Example: orchard tenants certificate list")
def list_certificates(as_json: Json = False) -> None:
    """All erasures, the newest first, by pseudonym: what is under way names its tenant."""
    from infra.database.erasures import Erasures

    with running_platform(load_settings()) as platform:
        rows = [
            {name: getattr(each, name) for name in ("erasure_id", "tenant", "subject", "started_at", "finished_at")}
            for each in Erasures(platform.cluster).all()
        ]
    show(rows, as_json, empty="nobody was erased yet")


@certificates.command("show", epilog="Example: orchard tenants certificate show 5f0c2d71a04be586 --for acme --to .")
def show_certificate(
    erasure: Annotated[str, typer.Argument(help="As `orchard tenants certificate list` shows it.")],
    whose: Annotated[str, typer.Option("--for", help="Make it out to this tenant, if it is that one's.")] = "",
    to: Annotated[Path | None, typer.Option(help="Write it into this folder.")] = None,
    as_json: Json = False,
) -> None:
    """An erasure's certificate."""
    from deployments.leaving.certificate import made_out_to, page, write
    from infra.database.audit import Audit
    from infra.database.erasures import Erasures

    settings = load_settings()
    with running_platform(settings) as platform:
        found = Erasures(platform.cluster).erasure(erasure)
        is_its = whose and Audit(platform.cluster).subject(whose) == found.subject
    if found.certificate is None:
        raise NotFound(f"erasure {erasure} is not complete", hint=f"orchard tenants erase {found.tenant}")
    if whose and not is_its:
        raise NotFound(f"erasure {erasure} is not that of {whose!r}", hint="orchard tenants certificate list")
    document = made_out_to(found.certificate, whose, settings.secret_key) if whose else found.certificate
    if to is not None:
        note(f"written to {write(document, to, f'erasure-{whose or erasure}').json}")
    if as_json:
        print_json(document)
    else:
        typer.echo(page(document))


@certificates.command(epilog="Example: orchard tenants certificate verify erasure-acme.json")
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The JSON file.")],
    key: Annotated[str, typer.Option(help="The public key; by default this Orchard's.")] = "",
    as_json: Json = False,
) -> None:
    """Check that a certificate is as it was signed."""
    from deployments.leaving.certificate import check
    from infra.signing import public_key

    checked = check(file, key or public_key(load_settings().secret_key))
    if as_json:
        print_json(checked._asdict())
        return
    whose = f"tenant {checked.tenant}" if checked.tenant else "one tenant"
    console.print(
        f"genuine: erasure {checked.erasure} of {whose} (pseudonym {checked.subject}), complete {checked.finished_at}",
        highlight=False,
        soft_wrap=True,
    )


@certificates.command("key", epilog="Example: orchard tenants certificate key")
def show_key(as_json: Json = False) -> None:
    """The public key by which anyone can check this Orchard's certificates."""
    from infra.signing import public_key

    key = public_key(load_settings().secret_key)
    typer.echo(json.dumps({"algorithm": "Ed25519", "public_key": key}) if as_json else key)
