"""What people and scripts see: tables, or JSON with `--json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.domain.errors import OrchardError

if TYPE_CHECKING:
    import pandas as pd

console = Console()
errors = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="So many rows at most.")]


def show(rows: Sequence[Mapping[str, Any]], as_json: bool, title: str = "", empty: str = "nothing to show") -> None:
    """Prints rows of equal keys."""
    if as_json:
        typer.echo(json.dumps([dict(row) for row in rows], indent=1, default=str))
        return
    if not rows:
        console.print(empty)
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    console.print(table)


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as plain values; missing ones as None."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [dict(zip(frame.columns, row, strict=True)) for row in plain.itertuples(index=False, name=None)]


def shown(value: object) -> str:
    """A cell: numbers with separators, missing values as a dash."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return escape(str(value))


def complain(error: OrchardError) -> None:
    """Prints an error: what, where, expected, found, what to do next."""
    errors.print(f"[bold red]error[/]: {escape(error.message)}", highlight=False)
    for label, text in (
        ("where", error.where),
        ("expected", error.expected),
        ("found", error.found),
        ("do next", error.hint),
    ):
        if text:
            errors.print(f"  [dim]{label:>8}[/]  {escape(text)}", highlight=False)
