"""The demo's results, printed: tables that fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from deployments.demo.results import ANSWERS, ARRIVALS, DEPARTURES, OUTCOMES, ROWS, Results
from tasks.domain.names import Purpose


def print_report(console: Console, results: Results, page: Path) -> None:
    """Prints the tables, and says where to look."""
    for use_case in (ARRIVALS, DEPARTURES):
        console.print(_rows(results, use_case))
        _print_totals(console, results, use_case)
        console.print(_partitions(results, use_case))
    console.print(_errors(results))
    _print_quality(console, results)
    tenant = results.accounts[0].tenant
    console.print(f"\n[bold]{results.seconds:.0f} s[/] in all; with plots: {page}", highlight=False, soft_wrap=True)
    console.print("look further:", highlight=False)
    for command in ("results", "receipts", "quarantine", "models", "releases list"):
        console.print(f"  .venv/bin/orchard {command} {tenant} {ARRIVALS}", highlight=False)
    console.print('  .venv/bin/orchard up   (the platform; then "Your own data" in README.md)', highlight=False)


def _table(title: str, texts: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in texts:
        table.add_column(column)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _rows(results: Results, use_case: str) -> Table:
    title = f"\n{use_case}: rows of all three files"
    table = _table(title, ("tenant", "tier"), (*ROWS, "scored"))
    for account in results.of(use_case):
        sums = [sum(counts.get(state, 0) for counts in account.rows.values()) for state in ROWS]
        table.add_row(account.tenant, account.tier, *(f"{cell:,}" for cell in (*sums, account.scored)))
    return table


def _print_totals(console: Console, results: Results, use_case: str) -> None:
    """A line per purpose: what arrived, and what became of it."""
    total = results.total(use_case)
    for purpose in Purpose:
        uploaded, *states = (total[f"{purpose}_{state}"] for state in ROWS)
        parts = " + ".join(f"{count:,} {state}" for count, state in zip(states, ROWS[1:], strict=True))
        scored = f"; {total['scored']:,} scored" if purpose is Purpose.SCORING else ""
        console.print(f"  [bold]{purpose:>7}  {uploaded:>7,}[/] = {parts}{scored}", highlight=False)


def _partitions(results: Results, use_case: str) -> Table:
    title = f"\n{use_case}: partitions, who answers for them, and what the gate said"
    table = _table(title, ("tenant",), (*OUTCOMES, "unseen", "own", "wide", "naive", "promoted", "held"))
    for account in results.of(use_case):
        table.add_row(
            account.tenant,
            *(str(account.partitions.get(name, 0)) for name in OUTCOMES),
            str(account.unseen),
            *(str(account.serving.get(who, 0)) for who in ANSWERS),
            str(account.promoted),
            str(account.held),
        )
    total = results.total(use_case)
    names = (*OUTCOMES, "unseen", *(f"served_{who}" for who in ANSWERS), "promoted", "held")
    table.add_section()
    table.add_row("all", *(str(total[name]) for name in names), style="bold")
    return table


def _errors(results: Results) -> Table:
    title = "\narrival-delay: error on November's flights (RMSE, minutes), and the seconds a tenant took"
    table = _table(title, ("tenant",), ("rows", "Orchard", "plain LightGBM", "naive rule", "seconds"))
    seconds = results.tenant_seconds
    everyone = {**results.by_tenant, "all": results.arrivals}
    for tenant, compared in everyone.items():
        errors = (compared.orchard, compared.plain, compared.rule) if compared else ()
        took = sum(seconds.values()) if tenant == "all" else seconds.get(tenant)
        if tenant == "all":
            table.add_section()
        table.add_row(
            tenant,
            f"{compared.rows:,}" if compared else "–",
            *(f"{error:.2f}" for error in errors),
            *("–" for _ in range(3 - len(errors))),
            f"{took:.1f}" if took else "–",
            style="bold" if tenant == "all" else None,
        )
    return table


def _print_quality(console: Console, results: Results) -> None:
    if (whole := results.arrivals) is not None:
        console.print(
            f"arrival-delay on {whole.rows:,} arrivals of November: RMSE {whole.orchard:.3f} (Orchard),"
            f" {whole.plain:.3f} (plain LightGBM per partition), {whole.rule:.3f} (naive rule);"
            f" Orchard / rule = {whole.ratio:.4f}, paired 95 % interval {whole.interval[0]:.4f} to"
            f" {whole.interval[1]:.4f}",
            highlight=False,
        )
    if scores := results.departures:
        console.print(
            f"late-departure on November's departures: AUC {scores['auc']:.3f}, log loss {scores['log_loss']:.4f};"
            f" base rates: AUC {scores['base_auc']:.3f}, log loss {scores['base_log_loss']:.4f}",
            highlight=False,
        )
