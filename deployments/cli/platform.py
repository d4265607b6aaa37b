"""`orchard up`, `down`, `status`, `logs`: the platform as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.cli.output import Json, console, note, print_json, show
from infra.settings import load_settings

PARTS = ("part", "health", "process", "pid", "uptime", "reason")
"""Columns that a person gets; scripts get the seconds and the addresses too."""


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the tree."""
    app.command(epilog="Example: orchard up")(up)
    app.command(epilog="Example: orchard down")(down)
    app.command(epilog="Example: orchard status --json")(status)
    app.command(epilog="Example: orchard logs prefect --lines 20 --follow")(logs)


def up(as_json: Json = False) -> None:
    """Start the whole platform, supervised, and leave it running.

    PostgreSQL, Prefect, MLflow, the HTTP API, workers, the inbox. What is set to be elsewhere is not started.
    """
    from deployments.status import platform_status
    from deployments.supervision.up import up as bring_up

    settings = load_settings()
    new = bring_up(settings, note)
    facts = platform_status(settings)
    if as_json:
        print_json({"started": new, **facts})
        return
    console.print("[bold]up[/]" if new else "[bold]already up[/]")
    _print(facts)
    console.print(
        "logins: [bold]orchard status --show-secrets[/] · output: [bold]orchard logs[/] · stop: [bold]orchard down[/]",
        soft_wrap=True,
    )


def down() -> None:
    """Stop the platform, whether `orchard up` started it or a kept demo left it running."""
    from deployments.supervision.down import down as take_down

    stopped = take_down(load_settings(), note)
    console.print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status(
    as_json: Json = False,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="With passwords, Prefect's login and the hook secret.")
    ] = False,
) -> None:
    """What runs, where it answers, and whether each part is healthy."""
    from deployments.status import held_jobs, parts_status, platform_status

    settings = load_settings()
    facts = platform_status(settings, show_secrets=show_secrets)
    parts, held = parts_status(settings), held_jobs(settings)
    if as_json:
        print_json({**facts, "parts": parts, "held": held})
        return
    _print(facts)
    shown = [{**part, "pid": part["pid"] and str(part["pid"]), "uptime": _uptime(part["uptime_s"])} for part in parts]
    show([{name: part[name] for name in PARTS} for part in shown], as_json=False)
    for row in held:
        note(f"{row['tenant']}.{row['use_case']}: jobs that wait: {row['jobs']}; {row['held']}")


def logs(
    part: Annotated[str, typer.Argument(help="A part, such as prefect or worker-tier-free; a list without it.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they are written, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """What a part wrote last; without a part, the logs that there are."""
    from deployments.supervision.logs import following_lines, last_lines, log_files, log_of

    home = load_settings().home
    if not part:
        if follow:
            raise typer.BadParameter("name the part to follow", param_hint="PART")
        files = log_files(home)
        if as_json:
            print_json([each._asdict() for each in files])
        for each in () if as_json else files:
            line = f"{each.part:>22} {each.size_bytes:>12,} bytes  {each.last_line}"
            console.print(line, highlight=False, markup=False, no_wrap=True, overflow="ellipsis")
        if not files and not as_json:
            console.print("nothing has run here yet; orchard up")
        return
    path = log_of(home, part)
    if as_json:
        if follow:
            raise typer.BadParameter("what is followed has no end, and so no JSON", param_hint="--json")
        print_json(last_lines(path, lines))
        return
    new = following_lines(path) if follow else iter(())
    try:
        for line in last_lines(path, lines):
            typer.echo(line)
        for line in new:
            typer.echo(line)
    except KeyboardInterrupt:
        return


def _print(facts: dict[str, str | None]) -> None:
    for name, value in facts.items():
        console.print(
            f"{name:>26}  {value if value is not None else '–'}", highlight=False, markup=False, soft_wrap=True
        )


def _uptime(seconds: object) -> str | None:
    """Seconds as a person says them, in the two largest units."""
    if not isinstance(seconds, float):
        return None
    rest, said = int(seconds), list[str]()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not said):
            said.append(f"{count} {unit}")
    return " ".join(said[:2])
