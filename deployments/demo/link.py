"""The demo as a run in Prefect's UI: its totals as an artifact, with a link to the page."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from deployments.demo.results import ARRIVALS, DEPARTURES, OUTCOMES, Results
from flows.runner import in_this_process


def link_page(results: Results, page: Path) -> None:
    """Records a run `demo` with one markdown artifact."""
    with in_this_process():
        demo(_markdown(results, page))


@flow(name="demo", flow_run_name="demo results", persist_result=False, validate_parameters=False)
def demo(markdown: str) -> None:
    """Shows what the demo's tenants got. Started at the end of `orchard demo`."""
    create_markdown_artifact(markdown, key="demo-results", description="What the demo's tenants got")


def _markdown(results: Results, page: Path) -> str:
    lines = [f"[Tables and plots]({page.resolve().as_uri()})", ""]
    for use_case in (ARRIVALS, DEPARTURES):
        total = results.total(use_case)
        rows = " · ".join(
            f"{total[f'{purpose}_uploaded']:,} {purpose}" for purpose in ("history", "scoring", "actuals")
        )
        partitions = " · ".join(f"{total[name]} {name}" for name in (*OUTCOMES, "unseen"))
        lines += [f"## {use_case}", f"- rows: {rows}", f"- partitions: {partitions}"]
    if results.arrivals:
        lines.append(f"- RMSE on November: {results.arrivals.orchard:.3f}; naive rule {results.arrivals.rule:.3f}")
    return "\n".join(lines)
