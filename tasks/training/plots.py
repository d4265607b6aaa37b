"""Plots of a training run, for people who would rather look than read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tasks.domain.use_case import UseCase


def draw(rows: pd.DataFrame, use_case: UseCase, folder: Path) -> dict[str, Path]:
    """PNG files by the name under which they are logged; `rows` are a run's `PARTITION_MODEL` rows.

    The figure is drawn without pyplot: that keeps a global state which threads must not share.
    """
    judged = rows.dropna(subset=["metric", "naive_metric"])
    if judged.empty:
        return {}
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    for estimator, group in judged.groupby("estimator"):
        axes.scatter(group["naive_metric"], group["metric"], s=14, alpha=0.7, label=f"{estimator} ({len(group)})")
    limit = float(judged[["metric", "naive_metric"]].to_numpy().max()) * 1.05
    axes.plot([0, limit], [0, limit], color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xlim=(0, limit),
        ylim=(0, limit),
        xlabel=f"{use_case.metric} of the naive rule (holdout)",
        ylabel=f"{use_case.metric} of the chosen model (holdout)",
        title=f"{use_case.id}: below the line, a model beats the rule",
    )
    axes.legend(title="chosen", fontsize=8)
    path = folder / "error-against-baseline.png"
    figure.savefig(path, dpi=90)
    return {"plots/error-against-baseline.png": path}
