"""`orchard verify-isolation`: the proof that tenants are kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.cli.actor import operator_here
from deployments.cli.output import Json, console, errors, note, print_json
from deployments.platform import running_platform
from infra.settings import load_settings

if TYPE_CHECKING:
    from flows.attacks.suite import Proof
    from infra.attacks.attempt import Attempt
    from infra.settings import Settings

COLOURS = {"denied": "green", "unproven": "yellow", "succeeded": "bold red", "error": "bold red"}


def register(app: typer.Typer) -> None:
    """Adds the command of this module to the tree."""
    app.command("verify-isolation", epilog="Example: orchard verify-isolation acme --victim globex")(verify_isolation)


def verify_isolation(
    tenant: Annotated[
        str, typer.Argument(help="Who attacks; without it, a tenant of each way of isolation, each day another.")
    ] = "",
    victim: Annotated[str, typer.Option(help="Who is attacked; without it, one in full and others quickly.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Only what is tried at each onboarding: seconds.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Folder of the report; below reports/isolation in the home without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack tenants with one another's real credentials, and say what came of each attempt.

    On storage, in SQL, in the registries, through the API: denied, succeeded, or unproven here and why. Nothing of
    theirs is changed, even where an attack succeeds. Exits with 1 when anything got through.
    """
    from flows.attacks.report import write_report

    settings = load_settings()
    with running_platform(settings, report=note):
        proof = with_progress(settings, tenant or None, victim or None, quick=quick)
    page = write_report(settings, proof, report)
    if as_json:
        print_json({**proof.model_dump(mode="json"), "holds": proof.holds, "report": str(page)})
    else:
        _print(proof)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    if not proof.holds:
        raise typer.Exit(1)


def with_progress(settings: Settings, tenant: str | None, victim: str | None, *, quick: bool) -> Proof:
    """The proof, with a bar while it is under way."""
    from deployments.verification import verify

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("attacking", total=None)

        def tried(attempt: Attempt) -> None:
            progress.update(bar, description=f"{attempt.attacker} → {attempt.victim}: {attempt.group}", advance=1)

        return verify(
            settings,
            tenant,
            victim,
            quick=quick,
            by=operator_here(),
            progress=tried,
            planned=lambda total: progress.update(bar, total=total),
        )


def kept_apart(settings: Settings, new: Sequence[str]) -> bool:
    """Attacks each new tenant by another one, and another one by it, quickly; tells what came of it, and whether
    nothing got through. Nothing is done where there is no other tenant."""
    from deployments.verification import verify_new

    held = True
    for tenant in new:
        proof = verify_new(settings, tenant, operator_here())
        if not proof.attempts:
            continue
        console.print(f"isolation of {tenant}: {proof.summary()}", highlight=False)
        for attempt in proof.got_through:
            print_attempt(attempt)
        held = held and proof.holds
    return held


def _print(proof: Proof) -> None:
    """A line per attempt where attempts are few against one victim, and per group for all others."""
    from flows.attacks.report import grouped

    first = (proof.attempts[0].attacker, proof.attempts[0].victim) if proof.attempts else ("", "")
    for name, attempts in grouped(proof).items():
        counts = Counter(attempt.outcome.value for attempt in attempts)
        shown = ", ".join(f"[{COLOURS[outcome]}]{count} {outcome}[/]" for outcome, count in counts.items())
        console.print(f"[bold]{name}[/]: {shown}", highlight=False)
        for attempt in attempts:
            if attempt.outcome != "denied" or (attempt.attacker, attempt.victim) == first:
                print_attempt(attempt)
    console.print(proof.note or proof.summary(), highlight=False)
    if proof.attempts:
        held = (
            "[green]no attempt got through[/]" if proof.holds else f"[bold red]{len(proof.got_through)} got through[/]"
        )
        console.print(f"{held} ({proof.seconds:.0f} s)", highlight=False)


def print_attempt(attempt: Attempt) -> None:
    """One line: outcome, name, what was tried; the reason below, where it was not denied."""
    colour = COLOURS[attempt.outcome.value]
    console.print(
        f"  [{colour}]{attempt.outcome.value:>9}[/]  {attempt.group}/{attempt.name}: {escape(attempt.what)}",
        highlight=False,
        soft_wrap=True,
    )
    if attempt.outcome != "denied":
        console.print(
            f"             [dim]{attempt.attacker} → {attempt.victim}: {escape(attempt.why)}[/]",
            highlight=False,
            soft_wrap=True,
        )
