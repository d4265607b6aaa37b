"""What people and scripts see: tables, or JSON with `--json`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
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


GAP = 2
"""Characters between two columns of a table."""
LIST_FROM_COLUMNS = 7
"""A single row of so many columns is printed as a list: name and value, a line each."""


def show(rows: Sequence[Mapping[str, Any]], as_json: bool, title: str = "", empty: str = "nothing to show") -> None:
    """Prints rows of equal keys."""
    if as_json:
        print_json([dict(row) for row in rows])
        return
    if not rows:
        console.print(empty)
        return
    if len(rows) == 1 and len(rows[0]) >= LIST_FROM_COLUMNS:
        if title:
            console.print(f"[italic]{escape(title)}[/]", highlight=False)
        for name, value in rows[0].items():
            console.print(f"[bold]{name.replace('_', ' '):>18}[/]  {shown(value)}", highlight=False, soft_wrap=True)
        return
    table = Table(
        title=title or None,
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,  # lines between columns would take the room that words need on a narrow screen
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    headers = [name.replace("_", " ") for name in rows[0]]
    cells = [[shown(value) for value in row.values()] for row in rows]
    widths = column_widths([headers, *cells], console.width - GAP * (len(headers) - 1))
    for name, header, width in zip(rows[0], headers, widths, strict=True):
        numeric = all(isinstance(row[name], int | float | Decimal | None) for row in rows)
        table.add_column(header, justify="right" if numeric else "left", overflow="fold", width=width)
    for line in cells:
        table.add_row(*line)
    console.print(table)


def column_widths(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths of a table's columns: as wide as their texts are where there is room. Where there is not, texts are broken
    between words; words, the longest first, only where nothing else helps."""
    columns = list(zip(*lines, strict=True))
    wanted = [max(1, *map(cell_len, column)) for column in columns]
    words = [max((cell_len(word) for text in column for word in text.split()), default=1) for column in columns]
    longest = max(words)
    while longest > 1 and sum(min(word, longest) for word in words) > room:
        longest -= 1
    widths = [min(word, longest) for word in words]
    for _ in range(min(room, sum(wanted)) - sum(widths)):
        neediest = max(range(len(widths)), key=lambda column: wanted[column] - widths[column])
        widths[neediest] += 1
    return widths


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as plain values; missing ones as None."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [dict(zip(frame.columns, row, strict=True)) for row in plain.itertuples(index=False, name=None)]


def print_json(value: object) -> None:
    """Prints JSON on standard output, where nothing else goes then. Amounts of money, decimal, become text."""
    typer.echo(json.dumps(_plain(value), indent=1, default=str, allow_nan=False))


def note(text: str) -> None:
    """Tells a person what happens, on standard error: standard output is for results."""
    errors.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)


def _plain(value: object) -> object:
    """The value with null for what JSON has no word for: missing and infinite numbers."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if value != value else value  # the missing values of pandas differ from themselves


def shown(value: object) -> str:
    """A cell: numbers with separators, missing values as a dash, points in time to the minute in UTC. Amounts of money,
    decimal, keep their places."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return f"{value:,f}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return escape(str(value))


def complain(error: OrchardError) -> None:
    """Prints an error: what, where, expected, found, what to do next."""
    complain_of(str(error))


def complain_of(text: str) -> None:
    """Prints the text of an error, as it was or as it is stored. Long lines are left whole, for `grep`."""
    message, *details = re.split(r"; (where|expected|found|do next): ", text)
    errors.print(f"[bold red]error[/]: {escape(message)}", highlight=False, soft_wrap=True)
    for label, detail in zip(details[::2], details[1::2], strict=True):
        errors.print(f"  [dim]{label:>8}[/]  {escape(detail)}", highlight=False, soft_wrap=True)
