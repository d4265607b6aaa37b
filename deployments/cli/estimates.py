"""`orchard run --dry-run`, and the question before a run that costs more than a limit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

from deployments.cli.output import note, print_json, show
from tasks.domain.errors import NotAgreed

if TYPE_CHECKING:
    from flows.estimation import Charge, Forecast
    from tasks.estimation.fit import Range

MB, SHOWN = 1e-6, Decimal("0.0001")


def print_forecasts(found: Sequence[Forecast], as_json: bool) -> None:
    """Prints what a run would do and use, per use case, and what that rests on."""
    if as_json:
        print_json([_plain(each) for each in found])
        return
    work = [
        {
            "use_case": each.use_case,
            "uploads": each.work.uploads,
            "to_train": each.work.train,
            "to_reuse": each.work.reuse,
            "to_reject": each.work.reject,
            "rows_to_train": each.work.rows_to_train,
            "rows_to_score": each.work.rows_to_score,
        }
        for each in found
    ]
    expected = [
        {
            "use_case": each.use_case,
            "CPU seconds": _shown(each.estimate.cpu_s),
            "wall seconds": _shown(each.estimate.wall_s),
            "peak MB": _shown(each.estimate.peak_mb),
            "MB stored": _shown(each.estimate.storage_bytes.times(MB)),
            "charge": "–" if each.charge is None else shown_charge(each.charge),
            "from": f"{each.estimate.runs} {each.estimate.source}"
            if each.estimate.runs
            else each.estimate.source.value,
        }
        for each in found
    ]
    if len(found) == 1:
        show([work[0] | expected[0]], False)
    else:
        show(work, False, title="what a run would do (partitions, rows)")
        show(expected, False, title="what it is expected to use (in nine runs of ten: from – to)")
    for each in found:
        for line in each.work.notes:
            note(f"{each.use_case}: {line}")
    if any(each.charge is None for each in found):
        note("no charge is told: no price book is valid today (orchard costs prices)")


def ask_above(found: Sequence[Forecast], limit: Decimal) -> None:
    """Lets a run go on whose charge is within the limit, or that a person agrees to. Raises `NotAgreed` where nobody
    can be asked."""
    from flows.estimation import total_of

    if not any(each.work.units for each in found):
        return
    charge = total_of(found)
    if charge is not None and charge.high <= limit:
        return
    what = (
        "what it will be charged is not known: no price book is valid today"
        if charge is None
        else f"it may be charged {shown_charge(charge)}"
    )
    if not sys.stdin.isatty():
        raise NotAgreed(
            f"{what}, and nobody can be asked",
            expected=f"at most {limit:,} {'' if charge is None else charge.currency}".strip(),
            hint="the same command with --yes goes on; with --dry-run it shows what it would do",
        )
    print_forecasts(found, as_json=False)
    if not typer.confirm(f"{what}; the limit is {limit:,}. Go on?", err=True):
        raise typer.Exit(1)


def shown_charge(charge: Charge) -> str:
    """An amount with its range."""
    low, expected, high = (f"{each.quantize(SHOWN):,}" for each in (charge.low, charge.expected, charge.high))
    return f"{expected} {charge.currency} ({low} – {high})"


def _shown(found: Range) -> str:
    return f"{_number(found.expected)} ({_number(found.low)} – {_number(found.high)})" if found.high else "0"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plain(each: Forecast) -> dict[str, Any]:
    work, found = each.work, each.estimate
    return {
        "use_case": each.use_case,
        "uploads": work.uploads,
        "partitions": {"train": work.train, "reuse": work.reuse, "reject": work.reject},
        "rows_to_train": work.rows_to_train,
        "rows_to_score": work.rows_to_score,
        "cpu_s": asdict(found.cpu_s),
        "wall_s": asdict(found.wall_s),
        "peak_mb": asdict(found.peak_mb),
        "storage_bytes": asdict(found.storage_bytes),
        "charge": None if each.charge is None else asdict(each.charge),
        "from": {"source": found.source, "runs": found.runs},
        "notes": list(work.notes),
    }
