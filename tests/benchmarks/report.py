"""What was measured, as tables for people, Markdown for the README, and JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.benchmarks.cases import Figure, Results
from tests.benchmarks.data import Size
from tests.benchmarks.stages import Step


def as_dict(results: Results, size: Size, workers: int) -> dict[str, Any]:
    """All of it, for JSON."""
    from importlib.metadata import version

    return {
        "size": asdict(size),
        "workers": workers,
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": platform.platform(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("prefect", "mlflow", "lightgbm", "pyarrow", "deltalake")},
        },
        "figures": [asdict(figure) | {"met": figure.met} for figure in results.figures],
        "steps": {label: [asdict(step) for step in steps] for label, steps in results.steps.items()},
        "bare": results.bare,
    }


def show(console: Console, results: Results) -> None:
    """Both tables (the second where steps were timed), and the first one again as Markdown."""
    table = Table(title="Benchmarks", title_justify="left", header_style="bold")
    for name in ("benchmark", "figure"):
        table.add_column(name)
    for name in ("value", "limit", "", "rounds"):
        table.add_column(name, justify="right")
    for figure in results.figures:
        met = "" if figure.met is None else "[green]✓[/]" if figure.met else "[red]✗[/]"
        table.add_row(*_cells(figure), met, figure.note)
    console.print(table)
    if results.steps:
        console.print(_shares(results))
    console.print(markdown(results), markup=False, highlight=False, soft_wrap=True)


def _shares(results: Results) -> Table:
    shares = Table(title="Where Orchard's time went", title_justify="left", header_style="bold")
    for name in ("benchmark", "step"):
        shares.add_column(name)
    for name in ("seconds", "share", "in the database", "CPU s", "servers' CPU s"):
        shares.add_column(name, justify="right")
    for label, steps in results.steps.items():
        _add_steps(shares, label, steps)
    return shares


def _add_steps(table: Table, label: str, steps: list[Step]) -> None:
    total = sum(step.seconds for step in steps) or 1.0
    for number, step in enumerate(steps):
        recorded = "" if step.recorded_s is None else f"{step.recorded_s:.2f}"
        timed = (f"{step.seconds:.2f}", f"{step.seconds / total:.1%}") if step.seconds else ("", "")
        cpu = (f"{step.cpu_s:.1f}", f"{step.server_cpu_s:.1f}") if step.seconds else ("", "")
        table.add_row("" if number else label, step.name, *timed, recorded, *cpu)
        for part, (seconds, count) in step.parts.items():
            name = f"    {part}" + (f" × {count}" if count > 1 else "")
            table.add_row("", f"[dim]{name}[/]", f"[dim]{seconds:.2f}[/]")


def markdown(results: Results) -> str:
    """The figures as a Markdown table."""
    lines = ["| benchmark | figure | value | limit |", "|---|---|---:|---:|"]
    lines += [f"| {' | '.join(_cells(figure))} |" for figure in results.figures]
    return "\n".join(lines)


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    sign = "≥" if figure.at_least else "≤"
    limit = "" if figure.limit is None else f"{sign} {_number(figure.limit)} {figure.unit}"
    return figure.benchmark, figure.name, f"{_number(figure.value)} {figure.unit}".strip(), limit


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
