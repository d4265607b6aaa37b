"""The command tree, and how an error reaches a person: one message, exit code 1 (failed) or 2 (wrong use)."""

from __future__ import annotations

import atexit
import gc
import os
import sys

import typer

from deployments.cli import (
    audit,
    budgets,
    costs,
    data,
    isolation,
    keys,
    leaving,
    platform,
    queue,
    releases,
    retention,
    storage,
    tenants,
    work,
)  # fmt: skip
from deployments.cli.defects import unexpected
from deployments.cli.output import complain, note
from infra.settings import misspelt
from tasks.domain.errors import InvalidDefinition, NotFound, OrchardError

app = typer.Typer(
    help="Many models for many tenants: ingest, train, promote and score thousands of small models per customer.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
leaving.register(tenants.app)
app.add_typer(tenants.app, name="tenants")
app.add_typer(releases.app, name="releases")
app.add_typer(keys.app, name="keys")
app.add_typer(storage.app, name="storage")
app.add_typer(audit.app, name="audit")
app.add_typer(budgets.app, name="budgets")
app.add_typer(costs.app, name="costs")
for module in (platform, work, data, queue, isolation, retention):
    module.register(app)

INTERRUPTED = 130
WRONG_USE = (InvalidDefinition, NotFound)


def main() -> None:
    """Runs one command; neither a user's mistake nor a defect shows a traceback.

    Typer itself ends wrong use with 2, Ctrl-C with 130 and a question that nobody answers with 1.
    """
    atexit.register(gc.freeze)  # else the interpreter, at its end, looks for cycles in all that libraries loaded: 1.5 s
    for name, setting in misspelt(os.environ).items():
        note(f"{name} is no setting, and is ignored: is {setting} meant?")
    try:
        app()
    except SystemExit as done:
        if done.code == INTERRUPTED:
            note("stopped; the same command, or `orchard run`, goes on from here")
            sys.stdout.flush()
            os._exit(INTERRUPTED)  # at once: the interpreter would wait for threads that still work
        raise
    except OrchardError as error:
        complain(error)
        sys.exit(2 if isinstance(error, WRONG_USE) else 1)
    except Exception as error:
        complain(unexpected(error))
        sys.exit(1)
