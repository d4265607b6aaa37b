"""Past runs as measurements: whose they are, how much each counts, and which of them do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from tasks.estimation.units import Kind

HALF_LIFE = 10
"""A run counts half as much as the one that is so many runs newer."""

SIMILAR = 4.0
"""Partitions whose sizes differ by no more than this factor are similar."""

UNIT_COLUMNS = ("job", "kind", "partitions", "rows", "cpu_s", "bytes_out")
JOB_COLUMNS = ("job", "cpu_s", "wall_s", "peak_mb", "rows")


class Source(StrEnum):
    """Whose past runs an estimate rests on."""

    OWN = "own runs"
    EARLIER = "own runs under an earlier contract"
    SIMILAR = "similar tenants' runs"
    ALL = "all tenants' runs"
    NONE = "default rates: nothing was measured yet"


@dataclass(frozen=True)
class Past:
    """Measurements. `units`: one row per unit, `UNIT_COLUMNS`, `group` (what is left out together: a run of the use
    case itself, or all runs of another one) and `weight`. `jobs`: one row per run, `JOB_COLUMNS`, `group`, `weight`.
    """

    source: Source
    units: pd.DataFrame
    jobs: pd.DataFrame

    def without(self, group: str) -> Past:
        return Past(self.source, self.units[self.units["group"] != group], self.jobs[self.jobs["group"] != group])

    @property
    def groups(self) -> list[str]:
        return list(self.jobs["group"].unique())


def own_past(units: pd.DataFrame, jobs: pd.DataFrame, recipe: str) -> Past:
    """A use case's own runs; of those that trained, with this recipe alone, unless there are only others."""
    source = Source.OWN
    trained = units["recipe"].notna() & (units["recipe"] != "")
    others = units.loc[trained & (units["recipe"] != recipe), "job"]
    if len(others):
        if (units["recipe"] == recipe).any():
            units, jobs = units[~units["job"].isin(others)], jobs[~jobs["job"].isin(others)]
        else:
            source = Source.EARLIER
    return Past(source if len(jobs) else Source.NONE, *_measured(units, jobs, None))


def peers_past(source: Source, found: Iterable[tuple[str, pd.DataFrame, pd.DataFrame]]) -> Past:
    """Runs of other use cases: name, units, jobs of each."""
    parts = [_measured(units, jobs, name) for name, units, jobs in found if len(jobs)]
    if not parts:
        return NO_PAST
    units, jobs = (pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))
    return Past(source, units, jobs)


def similar_peers(peers: pd.DataFrame, tier: str, kind: str, rows_per_partition: float | None) -> pd.DataFrame:
    """Those of the same tier and kind whose partitions are of similar size, the most similar first; of a use case
    without data, no size is known, and the latest come first. `peers`: `tier`, `kind`, `rows_per_partition`."""
    same = peers[(peers["tier"] == tier) & (peers["kind"] == kind)]
    if rows_per_partition is None or not len(same):
        return same
    off = np.abs(np.log(same["rows_per_partition"].clip(lower=1.0) / max(1.0, rows_per_partition)))
    close: pd.DataFrame = same.loc[off[off <= np.log(SIMILAR)].sort_values(kind="stable").index]
    return close


def _measured(units: pd.DataFrame, jobs: pd.DataFrame, name: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Adds what no unit explains as a unit of its own, groups and weights."""
    units = units[units["kind"].isin([kind.value for kind in Kind])]
    explained = jobs["job"].map(units.groupby("job")["cpu_s"].sum()).fillna(0.0)
    starts = pd.DataFrame({"job": jobs["job"], "kind": Kind.START.value, "cpu_s": jobs["cpu_s"] - explained})
    runs = units[units["kind"].str.endswith("/rest")].groupby("job").size()
    starts["partitions"] = jobs["job"].map(runs).fillna(0).astype("float64")
    starts = starts.assign(cpu_s=starts["cpu_s"].clip(lower=0.0), rows=0.0, bytes_out=0.0)
    weights = 0.5 ** (jobs["age"].astype("float64") / HALF_LIFE)
    handled = jobs["job"].map(units.groupby("job")["rows"].sum()).fillna(0.0)
    jobs = jobs.assign(rows=handled, weight=weights, group=jobs["job"] if name is None else name)
    all_units = pd.concat([units.reindex(columns=list(UNIT_COLUMNS)), starts[list(UNIT_COLUMNS)]], ignore_index=True)
    by_job = jobs.set_index("job")[["weight", "group"]]
    return all_units.join(by_job, on="job", how="inner"), jobs


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    texts = ("job", "kind", "group")
    return pd.DataFrame({name: pd.Series(dtype="str" if name in texts else "float64") for name in columns})


NO_PAST = Past(Source.NONE, _empty((*UNIT_COLUMNS, "group", "weight")), _empty((*JOB_COLUMNS, "group", "weight")))
