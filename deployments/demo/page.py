"""The demo's page: tables and plots in one file that needs nothing else."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, select_autoescape

from deployments.demo.results import ARRIVALS, DEPARTURES, OUTCOMES, ROWS, Results


def render(results: Results, path: Path) -> None:
    """Writes the page; whatever was there is replaced."""
    environment = Environment(autoescape=select_autoescape(default=True))
    environment.filters["number"] = lambda value: f"{value:,}"
    template = environment.from_string(files("deployments.demo").joinpath("page.html.j2").read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        template.render(
            results=results,
            use_cases=(ARRIVALS, DEPARTURES),
            arrivals=ARRIVALS,
            purposes=("history", "scoring", "actuals"),
            states=ROWS,
            outcomes=OUTCOMES,
            answers=("own", "tenant_wide", "naive"),
            plots=_plots(results),
        ),
        encoding="utf-8",
    )


def _plots(results: Results) -> list[tuple[str, str]]:
    """(caption, PNG as base64) of each plot."""
    from matplotlib.figure import Figure

    compared = {tenant: each for tenant, each in results.by_tenant.items() if each is not None}
    plots = []
    if compared:
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.add_subplot()
        width = 0.27
        for shift, (label, name) in enumerate(
            (("Orchard", "orchard"), ("plain LightGBM per partition", "plain"), ("naive rule", "rule"))
        ):
            places = [place + (shift - 1) * width for place in range(len(compared))]
            axes.bar(places, [getattr(each, name) for each in compared.values()], width, label=label)
        axes.set_xticks(range(len(compared)), [tenant.upper() for tenant in compared])
        axes.set(ylabel="RMSE, minutes", title="Arrival delay in November: error per airline")
        axes.legend()
        plots.append(("Error per airline, all on the same rows", _png(figure)))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    accounts, left = results.of(ARRIVALS), [0] * len(results.of(ARRIVALS))
    for who, label in (("own", "own model"), ("tenant_wide", "tenant-wide model"), ("naive", "naive rule")):
        counts = [account.serving.get(who, 0) for account in accounts]
        axes.bar([account.tenant.upper() for account in accounts], counts, bottom=left, label=label)
        left = [below + count for below, count in zip(left, counts, strict=True)]
    axes.set(ylabel="partitions", title="Who answers for a partition of arrival-delay")
    axes.legend()
    plots.append(("What the choice and the gate left serving", _png(figure)))
    return plots


def _png(figure: object) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)  # type: ignore[attr-defined]  # matplotlib is untyped here
    return base64.b64encode(buffer.getvalue()).decode()
