"""Small use cases and frames that the tests of training and of the scorer share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.domain.run import Batch
from tasks.domain.use_case import UseCase
from tasks.scorer import BUNDLE_SCHEMA, partition_names
from tasks.training.tenant_wide import TenantWideModel, fit_tenant_wide, sample_bucket


def demand(**changes: Any) -> UseCase:
    """Regression: sales per store, with last week's sales as the natural guess."""
    return UseCase.model_validate(
        {
            "id": "demand",
            "kind": "regression",
            "contract": {
                "columns": {
                    "store": {"type": "integer"},
                    "day": {"type": "timestamp"},
                    "price": {"type": "number", "nullable": True},
                    "promo": {"type": "string", "nullable": True},
                    "last_week": {"type": "number"},
                    "sales": {"type": "number", "nullable": True},
                },
                "row_key": ["store", "day"],
            },
            "derived": {"weekday": {"as": "date_part", "from": "day", "part": "weekday"}},
            "partition_by": ["store"],
            "target": "sales",
            "time": "day",
            "baseline": "last_week",
            "features": {"numeric": ["price", "weekday"], "categorical": ["promo"]},
            "training": {"min_rows": 10, "lightgbm": {"num_iterations": 10}},
            **changes,
        }
    )


def churn(**changes: Any) -> UseCase:
    """Classification with three classes, without a time column."""
    return UseCase.model_validate(
        {
            "id": "churn",
            "kind": "classification",
            "contract": {
                "columns": {
                    "customer": {"type": "integer"},
                    "region": {"type": "string"},
                    "age": {"type": "number", "nullable": True},
                    "plan": {"type": "string", "nullable": True},
                    "state": {"type": "string", "allowed": ["stays", "leaves", "unclear"], "nullable": True},
                },
                "row_key": ["customer"],
            },
            "partition_by": ["region"],
            "target": "state",
            "features": {"numeric": ["age"], "categorical": ["plan"]},
            "training": {"min_rows": 10, "lightgbm": {"num_iterations": 10}},
            **changes,
        }
    )


def sales(stores: int = 3, rows: int = 120, seed: int = 0) -> pd.DataFrame:
    """`rows` days of each store: sales follow the price and the promotion, with noise."""
    rng = np.random.default_rng(seed)
    count = stores * rows
    frame = pd.DataFrame(
        {
            "store": np.repeat(np.arange(stores), rows),
            "day": np.tile(pd.date_range("2024-01-01", periods=rows, freq="D", tz="UTC"), stores),
            "price": rng.uniform(1, 9, count),
            "promo": rng.choice(["none", "flyer", "tv"], count),
            "last_week": rng.uniform(50, 60, count),
        }
    )
    lift = frame["promo"].map({"none": 0.0, "flyer": 5.0, "tv": 10.0})
    frame["sales"] = frame["last_week"] - 4 * frame["price"] + lift + rng.normal(0, 1, count)
    return frame


def customers(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Customers of two regions whose state hangs on their age."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "customer": np.arange(rows),
            "region": rng.choice(["north", "south"], rows),
            "age": rng.uniform(18, 90, rows),
            "plan": rng.choice(["basic", "plus"], rows),
        }
    )
    states = np.where(frame["age"] > 60, "stays", np.where(frame["age"] > 40, "unclear", "leaves"))
    frame["state"] = np.where(rng.uniform(size=rows) < 0.1, "leaves", states)
    return frame


def whole_batch(frame: pd.DataFrame, use_case: UseCase, run_id: int = 1) -> Batch:
    """One batch of all partitions of a frame."""
    names = sorted(set(partition_names(frame, use_case.partition_by)))
    return Batch(run_id=run_id, number=0, bucket=0, partitions=tuple(names))


def tenant_wide_of(frame: pd.DataFrame, use_case: UseCase) -> TenantWideModel:
    sample = sample_bucket(frame, use_case, use_case.training.tenant_wide.max_rows)
    return fit_tenant_wide([sample], use_case, labelled_rows_now=len(frame), run_id=7, clock=lambda: 0.0)


def write_bundle(
    folder: Path,
    use_case: UseCase,
    models: Sequence[dict[str, Any]],
    tenant_wide: TenantWideModel | None,
    naive: Sequence[float],
) -> Path:
    """The least bundle that a scorer opens, in row groups of two models."""
    (folder / "models").mkdir(parents=True)
    index = [
        {
            "partition": row["partition"],
            "file": "models/0.parquet",
            "row_group": number // 2,
            "row": number % 2,
            "answer": "own",
            "fallback": False,
            "naive": row["naive"],
            "source_run": row["source_run"],
            "estimator": row["estimator"],
        }
        for number, row in enumerate(models)
    ]
    table = pa.Table.from_pylist(list(models), schema=BUNDLE_SCHEMA)
    pq.write_table(table, folder / "models/0.parquet", row_group_size=2)
    star: dict[str, Any] = {"partition": "*", "file": None, "row_group": None, "row": None, "answer": "naive"}
    star |= {"fallback": False, "naive": list(naive), "source_run": 7, "estimator": "naive"}
    if tenant_wide is not None:
        row = tenant_wide.bundle_rows()[0]
        pq.write_table(pa.Table.from_pylist([row], schema=BUNDLE_SCHEMA), folder / "models/tenant-wide.parquet")
        star |= {"file": "models/tenant-wide.parquet", "row_group": 0, "row": 0, "answer": "tenant_wide"}
        star |= {"naive": row["naive"], "estimator": row["estimator"]}
    pq.write_table(pa.Table.from_pylist([*index, star]), folder / "index.parquet")
    use = use_case.model_dump(mode="json", by_alias=True)
    about = {
        "format": 1,
        "tenant": "acme",
        "use_case": use_case.id,
        "kind": use_case.kind.value,
        "classes": list(use_case.classes),
        "partition_by": list(use_case.partition_by),
        "row_key": list(use_case.contract.row_key),
        "baseline": use_case.baseline,
        "derived": use["derived"],
        "features": use["features"],
        "columns": {name: column.type.value for name, column in use_case.contract.columns.items()},
    }
    (folder / "bundle.json").write_text(json.dumps(about))
    return folder
