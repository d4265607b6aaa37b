"""The gate: may this candidate serve its partition? One verdict per partition, with the numbers that decided
it.

The rules, in this order; the first that is broken holds the candidate:
1. there is a model, and its error on the holdout was measured (a missing metric never promotes);
2. the holdout has at least `min_holdout_rows` rows;
3. the error is at most `max_error`, where the gate sets one;
4. a fitted model beats the naive rule on the same holdout by at least the share `min_gain`;
5. against a champion, the error is at most `max_regression` worse: on rows that entered after the champion's
   dataset
   version (the champion never saw them, nor did the unrefitted candidate) or, where those are too few, on the
   recorded metrics of both; a champion that was judged by another metric than the gate's, or whose features
   differ so that it cannot stay, is no rival.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass

import pandas as pd

from tasks.domain.outcome import Hold, Promote, Verdict
from tasks.domain.use_case import Estimator, Gate, Metric


@dataclass(frozen=True)
class Candidate:
    """What training knows about one partition's candidate. Errors are of its holdout, before any refit.

    `estimator` is None where training left no model, and `reason` says why.
    """

    estimator: Estimator | None
    metric: float | None = None
    naive_metric: float | None = None
    holdout_rows: int = 0
    source_run: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Champion:
    """The model that serves the partition now, with the error that was recorded when it was judged."""

    estimator: Estimator
    metric: float | None
    source_run: int


@dataclass(frozen=True)
class Comparison:
    """Errors of the unrefitted candidate and of the champion on the same `rows`, which neither has seen."""

    rows: int
    candidate: float | None
    champion: float | None


def judge(
    candidate: Candidate,
    champion: Champion | None,
    comparison: Comparison | None,
    *,
    gate: Gate,
    metric: Metric,
) -> Verdict:
    """The verdict on one partition's candidate; `champion` is None where no promoted model serves it."""
    if candidate.estimator is None:
        return Hold(reason=f"no candidate: {candidate.reason or 'training left no model'}")
    error = _number(candidate.metric)
    if error is None:
        return Hold(reason=f"no {metric} was measured on the holdout")
    if candidate.holdout_rows < gate.min_holdout_rows:
        return Hold(reason=f"{candidate.holdout_rows} holdout rows < {gate.min_holdout_rows}")
    if gate.max_error is not None and error > gate.max_error:
        return Hold(reason=f"{metric} {error:.4g} > limit {gate.max_error:.4g}")

    measured = f"{metric} {error:.4g} on {candidate.holdout_rows} holdout rows"
    if candidate.estimator is Estimator.NAIVE:
        measured += ", the naive rule itself"
    else:
        naive = _number(candidate.naive_metric)
        if naive is None:
            return Hold(reason=f"no {metric} of the naive rule was measured on the holdout")
        gain = _gain(error, naive)
        if gain < gate.min_gain:
            return Hold(
                reason=f"{metric} {error:.4g} against {naive:.4g} of the naive rule is a gain of {gain:.1%}"
                f" < {gate.min_gain:.1%}"
            )
        measured += f", {gain:.1%} better than the naive {naive:.4g}"

    if champion is None:
        return Promote(reason=f"{measured}; no champion to compare with")
    if (candidate.estimator, candidate.source_run) == (champion.estimator, champion.source_run):
        return Promote(reason=f"{measured}; it is the champion itself, of run {champion.source_run}")
    return _against(champion, error, comparison, measured, gate, metric)


def _against(
    champion: Champion,
    error: float,
    comparison: Comparison | None,
    measured: str,
    gate: Gate,
    metric: Metric,
) -> Verdict:
    """Rule 5."""
    new_rows = comparison.rows if comparison is not None else 0
    ours, theirs = error, _number(champion.metric)
    basis = f"as recorded ({new_rows} new rows are too few)"
    if comparison is not None and new_rows >= gate.min_holdout_rows:
        ours_now, theirs_now = _number(comparison.candidate), _number(comparison.champion)
        if ours_now is None:
            return Hold(reason=f"no {metric} was measured on {new_rows} new rows")
        basis = f"as recorded (the champion has no {metric} on the {new_rows} new rows)"
        if theirs_now is not None:
            ours, theirs, basis = ours_now, theirs_now, f"on the same {new_rows} new rows"
    if theirs is None:
        return Hold(reason=f"the champion of run {champion.source_run} has no {metric} to compare with")
    rival = f"{theirs:.4g} of the champion (run {champion.source_run}) {basis}"
    if ours > theirs * (1 + gate.max_regression):
        return Hold(reason=f"{metric} {ours:.4g} > {rival} + {gate.max_regression:.1%}")
    return Promote(reason=f"{measured}; {ours:.4g} ≤ {rival} + {gate.max_regression:.1%}")


def judge_all(
    candidates: pd.DataFrame,
    champions: pd.DataFrame | None,
    comparisons: Mapping[str, Comparison],
    *,
    gate: Gate,
    metric: Metric,
    otherwise_judged: Container[int] = (),
) -> dict[str, Verdict]:
    """Verdicts by partition, in the order of `candidates`.

    `candidates`: `PARTITION_MODEL` rows of the training run. `champions`: `VERDICT` rows of the release that
    serves, or None; its fallback rows count as no champion, nor do models of the training runs in
    `otherwise_judged`, which another metric judged. `comparisons`: by partition, where there are new rows.
    """
    serving = {} if champions is None else _champions(champions)
    serving = {name: each for name, each in serving.items() if each.source_run not in otherwise_judged}
    verdicts: dict[str, Verdict] = {}
    for row in candidates.to_dict(orient="records"):
        source_run = _number(row["source_run"])
        candidate = Candidate(
            estimator=None if pd.isna(row["estimator"]) else Estimator(row["estimator"]),
            metric=_number(row["metric"]),
            naive_metric=_number(row["naive_metric"]),
            holdout_rows=int(_number(row["holdout_rows"]) or 0),
            source_run=None if source_run is None else int(source_run),
            reason="" if pd.isna(row["reason"]) else str(row["reason"]),
        )
        partition = row["partition"]
        verdicts[partition] = judge(
            candidate, serving.get(partition), comparisons.get(partition), gate=gate, metric=metric
        )
    return verdicts


def _champions(rows: pd.DataFrame) -> dict[str, Champion]:
    promoted = rows[~rows["fallback"].astype(bool)]
    columns = ("partition", "estimator", "metric", "source_run")
    return {
        partition: Champion(Estimator(estimator), _number(error), int(source_run))
        for partition, estimator, error, source_run in zip(
            *(promoted[column].tolist() for column in columns), strict=True
        )
    }


def _number(value: object) -> float | None:
    """The value as a finite number; None for all that a database or a frame may use to say "missing"."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _gain(error: float, naive: float) -> float:
    """Share by which `error` is below `naive`; nothing is gained on a naive rule that is never wrong."""
    if naive > 0:
        return 1 - error / naive
    return 0.0 if error <= 0 else -math.inf
