"""The command tree, and how an error reaches a person: one message, exit code 1 (failed) or 2 (wrong use)."""

from __future__ import annotations

import sys

import typer
from typer.exceptions import TyperException

from deployments.cli import data, releases, tenants, work
from deployments.cli.output import complain
from tasks.domain.errors import InvalidDefinition, NotFound, OrchardError

app = typer.Typer(
    help="Many models for many tenants: ingest, train, promote and score thousands of small models per customer.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tenants.app, name="tenants")
app.add_typer(releases.app, name="releases")
for module in (work, data):
    module.register(app)

WRONG_USE = (InvalidDefinition, NotFound)


def main() -> None:
    """Runs one command; a user's mistake never shows a traceback."""
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
    except OrchardError as error:
        complain(error)
        sys.exit(2 if isinstance(error, WRONG_USE) else 1)
    except typer.Abort:
        sys.exit(130)
    except TyperException as error:  # wrong use: an unknown option, a missing argument
        error.show()  # type: ignore[attr-defined]  # typer declares it on a class that it does not export
        sys.exit(2)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
