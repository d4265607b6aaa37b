"""Synthetic data: N partitions × R rows × 10 numeric features, from a seed, written in bounded memory.

Every partition ("unit") has a response of its own: interactions, a step and a bend that trees find and lines do not.
A file has one row group per unit, so that a plain loop can read one unit at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.domain.tenant import Tenant, Tier
from tasks.domain.use_case import UseCase

FEATURES = tuple(f"x{number}" for number in range(10))
ONE, FULL = "one-estimator", "full-choice"
WARM_UP = (f"warm-up-{ONE}", f"warm-up-{FULL}")
TENANT = "bench"


@dataclass(frozen=True)
class Size:
    """How much data: `partitions` units of `rows` rows each."""

    partitions: int
    rows: int
    seed: int = 7

    @property
    def touched(self) -> range:
        """The units that the one-percent upload touches."""
        return range(0, self.partitions, 100)


def use_case(choice: str, name: str | None = None) -> UseCase:
    """`ONE`: LightGBM alone, no refit; `FULL`: LightGBM, ridge and tenant-wide compete, and the winner is refitted."""
    columns = {"unit": {"type": "integer"}, "step": {"type": "integer"}}
    columns |= {name: {"type": "number"} for name in FEATURES}
    return UseCase.model_validate(
        {
            "id": name or choice,
            "kind": "regression",
            "contract": {
                "columns": {**columns, "y": {"type": "number"}},
                "row_key": ["unit", "step"],
            },
            "partition_by": ["unit"],
            "target": "y",
            "time": "step",
            "features": {"numeric": list(FEATURES)},
            "estimators": ["lightgbm"] if choice == ONE else ["lightgbm", "linear", "tenant_wide"],
            "training": {"refit": choice == FULL},
        }
    )


def tenant() -> Tenant:
    """One premium tenant with both use cases, each of them also in a copy to warm up with."""
    use_cases = [use_case(choice, name) for choice in (ONE, FULL) for name in (choice, f"warm-up-{choice}")]
    return Tenant(id=TENANT, name="Benchmark", tier=Tier.PREMIUM, use_cases=tuple(use_cases))


def unit_table(size: Size, unit: int, first: int, rows: int) -> pa.Table:
    """Rows `first` … of one unit in the order of `step`; the same seed and place give the same rows."""
    random = np.random.default_rng([size.seed, unit, first])
    own = np.random.default_rng([size.seed, unit]).normal(size=len(FEATURES))
    x = np.round(random.normal(size=(rows, len(FEATURES))), 4)
    y = x @ own + 2 * x[:, 0] * x[:, 1] + 3 * (x[:, 2] > own[0]) + np.abs(x[:, 3] * own[1]) + random.normal(size=rows)
    columns = {"unit": np.full(rows, unit), "step": np.arange(first, first + rows)}
    columns |= {name: x[:, place] for place, name in enumerate(FEATURES)}
    return pa.table({**columns, "y": np.round(y, 4)})


def write_history(path: Path, size: Size) -> None:
    """The history: all units, targets included."""
    _write(path, (unit_table(size, unit, 0, size.rows) for unit in range(size.partitions)))


def write_scoring(path: Path, size: Size) -> None:
    """As many rows again, later ones, without targets."""
    tables = (unit_table(size, unit, 10 * size.rows, size.rows) for unit in range(size.partitions))
    _write(path, (table.drop_columns("y") for table in tables))


def write_update(path: Path, size: Size) -> None:
    """A later history file that touches one unit in a hundred: a tenth of its rows anew, and as many new ones."""
    part = max(1, size.rows // 10)
    _write(path, (unit_table(size, unit, size.rows - part, 2 * part) for unit in size.touched))


def write_update_scoring(path: Path, size: Size) -> None:
    """As many rows of the same units to score."""
    part = max(1, size.rows // 10)
    tables = (unit_table(size, unit, 2 * size.rows, 2 * part) for unit in size.touched)
    _write(path, (table.drop_columns("y") for table in tables))


def _write(path: Path, tables: Iterable[pa.Table]) -> None:
    writer: pq.ParquetWriter | None = None
    for table in tables:
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1, use_dictionary=False)
        writer.write_table(table)
    if writer is not None:
        writer.close()
