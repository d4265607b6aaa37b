"""The demo's results, printed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from deployments.demo.results import ARRIVALS, DEPARTURES, OUTCOMES, ROWS, Results


def print_report(console: Console, results: Results, page: Path) -> None:
    """Prints the tables, and says where to look."""
    for use_case in (ARRIVALS, DEPARTURES):
        console.print(_rows(results, use_case))
        console.print(_partitions(results, use_case))
    _print_quality(console, results)
    tenant = results.accounts[0].tenant
    console.print(f"\n[bold]{results.seconds:.0f} s[/] in all; with plots: {page}", highlight=False, soft_wrap=True)
    console.print("look further:", highlight=False)
    for command in ("results", "receipts", "quarantine", "models", "releases list"):
        console.print(f"  .venv/bin/orchard {command} {tenant} {ARRIVALS}", highlight=False)


def _rows(results: Results, use_case: str) -> Table:
    table = Table(title=f"{use_case}: rows, uploaded = accepted + quarantined + duplicate", title_justify="left")
    for column in ("tenant", "tier"):
        table.add_column(column)
    for purpose in ("history", "scoring", "actuals"):
        for state in ROWS:
            table.add_column(f"{purpose}\n{state}", justify="right")
    table.add_column("scored", justify="right")
    for account in results.of(use_case):
        cells = [account.rows.get(p, {}).get(s, 0) for p in ("history", "scoring", "actuals") for s in ROWS]
        table.add_row(account.tenant, account.tier, *(f"{cell:,}" for cell in (*cells, account.scored)))
    total = results.total(use_case)
    cells = [total[f"{p}_{s}"] for p in ("history", "scoring", "actuals") for s in ROWS]
    table.add_section()
    table.add_row("all", "", *(f"{cell:,}" for cell in (*cells, total["scored"])), style="bold")
    return table


def _partitions(results: Results, use_case: str) -> Table:
    table = Table(title=f"{use_case}: partitions, and the error on November's flights", title_justify="left")
    table.add_column("tenant")
    for column in (*OUTCOMES, "unseen", "own model", "tenant-wide", "naive", "promoted", "held"):
        table.add_column(column, justify="right")
    live = use_case == ARRIVALS
    for column in ("Orchard RMSE", "plain LightGBM", "naive rule") if live else ():
        table.add_column(column, justify="right")
    table.add_column("seconds", justify="right")
    for account in results.of(use_case):
        compared = results.by_tenant.get(account.tenant) if live else None
        errors = (compared.orchard, compared.plain, compared.rule) if compared else (None,) * 3
        seconds = results.tenant_seconds.get(account.tenant)
        table.add_row(
            account.tenant,
            *(str(account.partitions.get(name, 0)) for name in OUTCOMES),
            str(account.unseen),
            *(str(account.serving.get(who, 0)) for who in ("own", "tenant_wide", "naive")),
            str(account.promoted),
            str(account.held),
            *((f"{error:.2f}" if error is not None else "–" for error in errors) if live else ()),
            f"{seconds:.1f}" if seconds is not None else "–",
        )
    total, whole = results.total(use_case), results.arrivals
    table.add_section()
    table.add_row(
        "all",
        *(str(total[name]) for name in (*OUTCOMES, "unseen")),
        *(str(total[f"served_{who}"]) for who in ("own", "tenant_wide", "naive")),
        str(total["promoted"]),
        str(total["held"]),
        *((f"{error:.2f}" for error in (whole.orchard, whole.plain, whole.rule)) if live and whole else ()),
        f"{sum(results.tenant_seconds.values()):.1f}" if results.tenant_seconds else "–",
        style="bold",
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
