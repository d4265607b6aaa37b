"""Releases: who serves each partition once the gate has spoken, as a bundle that stands alone.

A partition is served by the candidate where it was promoted; else by its champion, where it has one (also
where training no longer knows the partition); else by a fallback: the tenant-wide model, then the naive rule.
A release has one tenant-wide model: the candidate's, unless the verdict on partition "*" holds it. Partitions
that chose it follow it when it is refitted.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks import bundle
from tasks.domain.names import TENANT_WIDE
from tasks.domain.outcome import Answer, Hold, Promote, Verdict
from tasks.ports import VERDICT


@dataclass(frozen=True)
class Composed:
    """A release's bundle folder.

    `entries` has every partition, "*" not among them; `served` the recorded errors (metric, naive metric) of
    the promoted models that serve, by partition.
    """

    folder: Path
    digest: str
    entries: tuple[bundle.Entry, ...]
    served: dict[str, tuple[float | None, float | None]]


def compose(
    into: Path,
    candidate: Path,
    champion: Path | None,
    verdicts: Mapping[str, Verdict],
    *,
    threads: int = 1,
) -> Composed:
    """Makes a release in `into` from the bundle of a training run and that of the release that serves now.

    A champion whose features, derived columns, baseline, kind, classes or partition keys differ from the
    candidate's cannot serve beside it: its partitions get the candidate or a fallback. Both bundles are only
    read, and the release shares no file with them. Whatever was in `into` is replaced. Raises `NotFound` when
    a promoted partition has no model in the candidate's bundle.
    """
    ours = {row.partition: row for row in bundle.scan(candidate)}
    theirs: dict[str, bundle.Place] = {}
    known: dict[str, bundle.Entry] = {}
    if champion is not None:
        differing = bundle.unlike(candidate, champion)
        if "partition_by" not in differing:
            known = bundle.read_index(champion)
        if not differing:
            theirs = {row.partition: row for row in bundle.scan(champion)}
    known.update(bundle.read_index(candidate))

    promoted = {name for name, verdict in verdicts.items() if isinstance(verdict, Promote)} - {TENANT_WIDE}
    # A model that both bundles have comes from the champion's, whose files hold only what serves: they are
    # copied whole, while a candidate's file with a held model in it has to be written anew.
    from_champion = {
        name
        for name in theirs.keys() - {TENANT_WIDE}
        if name not in promoted or (name in ours and _origin(ours[name]) == _origin(theirs[name]))
    }
    from_candidate = promoted - from_champion
    holds_everyone = isinstance(verdicts.get(TENANT_WIDE), Hold) and TENANT_WIDE in theirs
    (from_champion if holds_everyone else from_candidate).add(TENANT_WIDE)

    bundle.fresh(into)
    bundle.gather(candidate, into, from_candidate, threads)
    if champion is not None:
        bundle.gather(champion, into, from_champion, threads)
    shutil.copyfile(candidate / "bundle.json", into / "bundle.json")
    return _finish(into, known)


def _origin(row: bundle.Place) -> tuple[int, str]:
    """What tells two models of one partition apart: a run leaves one model per partition."""
    return row.source_run, row.estimator


def _finish(into: Path, known: Mapping[str, bundle.Entry]) -> Composed:
    """Index and manifest over the parts that are there; a fallback for all that is known and has no row."""
    rows = {row.partition: row for row in bundle.scan(into)}
    everyone = rows.pop(TENANT_WIDE)
    entries = [bundle.own_entry(row, everyone) for row in rows.values()]
    entries += [
        bundle.fallback_entry(name, everyone, entry.naive)
        for name, entry in known.items()
        if name not in rows and name != TENANT_WIDE
    ]
    digest = bundle.seal(into, [*entries, bundle.everyone_entry(everyone)])
    served = {name: (row.metric, row.naive_metric) for name, row in rows.items()}
    return Composed(into, digest, tuple(sorted(entries, key=lambda entry: entry.partition)), served)


def release_rows(composed: Composed, verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """One row per partition of the release, sorted: columns `VERDICT`. The errors are those of the model that
    serves, recorded when it was judged; missing where a fallback serves."""
    rows = []
    for entry in composed.entries:
        verdict = verdicts.get(entry.partition) or Hold(reason="no candidate: not in this training run")
        reason = verdict.reason
        if isinstance(verdict, Hold):
            reason += "; " + _instead(entry)
        metric, naive_metric = composed.served.get(entry.partition, (None, None))
        rows.append(
            (
                entry.partition,
                verdict.verdict,
                reason,
                entry.answer.value,
                entry.fallback,
                entry.estimator.value,
                entry.source_run,
                metric,
                naive_metric,
            )
        )
    return pd.DataFrame(rows, columns=list(VERDICT)).astype({"metric": float, "naive_metric": float})


def _instead(entry: bundle.Entry) -> str:
    if not entry.fallback:
        return f"the champion of run {entry.source_run} stays"
    return f"the {'naive rule' if entry.answer is Answer.NAIVE else 'tenant-wide model'} answers"
