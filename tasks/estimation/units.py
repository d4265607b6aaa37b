"""Units of work, past and to come, in the words of metering: a batch of a run, the rest of a run, a process's start.

Of a kind of unit, CPU time is taken to be `fixed + a · partitions + b · rows`; what these are of is said in `DEFAULTS`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """Stage, and whether it is one of its batches or the rest of the run."""

    START = "start"
    INGESTION = "ingestion/rest"
    TRAINING_BATCH = "training/batch"
    TRAINING = "training/rest"
    PROMOTION = "promotion/rest"
    SCORING_BATCH = "scoring/batch"
    SCORING = "scoring/rest"
    MONITORING = "monitoring/rest"


class Unit(NamedTuple):
    """One unit of work; `partitions` and `rows` are what its CPU time grows with."""

    kind: Kind
    partitions: float = 0.0
    rows: float = 0.0


DEFAULTS: dict[Kind, tuple[float, float, float]] = {
    Kind.START: (3.0, 0.15, 0.0),  # a process: imports, connections; and what surrounds its runs (not partitions)
    Kind.INGESTION: (0.3, 0.0, 1e-5),  # rows of the file
    Kind.TRAINING_BATCH: (0.03, 0.03, 2e-5),  # models that it fits; labelled rows that they learn from
    Kind.TRAINING: (0.5, 0.002, 3e-5),  # partitions of a new bundle; rows that the tenant-wide model is fitted on
    Kind.PROMOTION: (0.26, 0.0006, 0.0),  # partitions of a new release
    Kind.SCORING_BATCH: (0.02, 0.0015, 5e-6),  # partitions and rows that it answers
    Kind.SCORING: (0.06, 0.0003, 5e-6),  # the same of the whole run
    Kind.MONITORING: (0.1, 0.0, 5e-6),  # rows of the file
}
"""CPU seconds: fixed, per partition, per row. Measured by `make bench-estimates` on two cores in November 2026, with
default estimators and ten features. They count where nothing was measured yet, and as the proportions that decide what
past runs cannot tell apart (all of one size, say)."""
