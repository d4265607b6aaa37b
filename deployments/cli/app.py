"""The command tree, and how an error reaches a person: one message, exit code 1 (failed) or 2 (wrong use)."""

from __future__ import annotations

import os
import sys

import typer
from typer.exceptions import TyperException

from deployments.cli import data, releases, tenants, work
from deployments.cli.defects import unexpected
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
    """Runs one command; neither a user's mistake nor a defect shows a traceback."""
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
    except OrchardError as error:
        complain(error)
        sys.exit(2 if isinstance(error, WRONG_USE) else 1)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except TyperException as error:  # wrong use: an unknown option, a missing argument
        error.show()
        sys.exit(error.exit_code)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        complain(unexpected(error))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
