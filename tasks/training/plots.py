"""Plots of a training run, for people who would rather look than read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.use_case import UseCase

BINS = 10


def draw(rows: pd.DataFrame, shown: Sequence[tuple[float, float]], use_case: UseCase, folder: Path) -> dict[str, Path]:
    """PNG files by the name under which they are logged.

    `rows` are a run's `PARTITION_MODEL` rows, `shown` (actual, predicted) of holdout rows. The figures are drawn
    without pyplot: that keeps a global state, which threads must not share.
    """
    plots: dict[str, Path] = {}
    judged = rows.dropna(subset=["metric", "naive_metric"])
    if len(judged):
        plots["plots/error-against-baseline.png"] = _errors(judged, use_case, folder / "error-against-baseline.png")
    if shown:
        draw_shown = _calibration if use_case.classes else _actual
        plots["plots/actual-against-predicted.png"] = draw_shown(
            np.asarray(shown), use_case, folder / "actual-against-predicted.png"
        )
    return plots


def _errors(judged: pd.DataFrame, use_case: UseCase, path: Path) -> Path:
    figure, axes = _figure()
    for estimator, group in judged.groupby("estimator"):
        axes.scatter(group["naive_metric"], group["metric"], s=14, alpha=0.7, label=f"{estimator} ({len(group)})")
    limit = float(judged[["metric", "naive_metric"]].to_numpy().max()) * 1.05 or 1.0
    axes.plot([0, limit], [0, limit], color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xlim=(0, limit),
        ylim=(0, limit),
        xlabel=f"{use_case.metric} of the naive rule (holdout)",
        ylabel=f"{use_case.metric} of the chosen model (holdout)",
        title=f"{use_case.id}: below the line, a model beats the rule",
    )
    axes.legend(title="chosen", fontsize=8)
    return _saved(figure, path)


def _actual(shown: np.ndarray[Any, Any], use_case: UseCase, path: Path) -> Path:
    figure, axes = _figure()
    less = f", less {use_case.baseline}" if use_case.baseline else ""
    axes.scatter(shown[:, 1], shown[:, 0], s=6, alpha=0.3)
    low, high = float(shown.min()), float(shown.max())
    axes.plot([low, high], [low, high], color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel=f"predicted {use_case.target}{less}",
        ylabel=f"actual {use_case.target}{less}",
        title=f"{use_case.id}: {len(shown):,} holdout rows that the models had not seen",
    )
    return _saved(figure, path)


def _calibration(shown: np.ndarray[Any, Any], use_case: UseCase, path: Path) -> Path:
    """Observed share against predicted probability, in bins of equal size."""
    figure, axes = _figure()
    groups = np.array_split(shown[np.argsort(shown[:, 1], kind="stable")], min(BINS, len(shown)))
    axes.plot([group[:, 1].mean() for group in groups], [group[:, 0].mean() for group in groups], marker="o")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel=f"predicted probability of {use_case.target} = {use_case.classes[-1]}",
        ylabel="observed share",
        title=f"{use_case.id}: {len(shown):,} holdout rows that the models had not seen",
    )
    return _saved(figure, path)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5))
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.1, top=0.93)  # a layout engine would draw everything twice
    return figure, figure.add_subplot()


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=90)
    return path
