"""Small bundles with real LightGBM models, for tests of bundles, releases and the registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from tasks import bundle
from tasks.domain.names import TENANT_WIDE
from tasks.domain.use_case import UseCase

USE_CASE = UseCase.model_validate(
    {
        "id": "demand",
        "kind": "regression",
        "contract": {
            "columns": {
                "store": {"type": "integer"},
                "day": {"type": "timestamp"},
                "price": {"type": "number", "nullable": True},
                "colour": {"type": "string", "nullable": True},
                "sales": {"type": "number"},
            },
            "row_key": ["store", "day"],
        },
        "derived": {"weekday": {"as": "date_part", "from": "day", "part": "weekday"}},
        "partition_by": ["store"],
        "target": "sales",
        "time": "day",
        "features": {"numeric": ["price", "weekday"], "categorical": ["colour"]},
    }
)
COLOURS = ["blue", "red"]


def rows(stores: int = 4, per_store: int = 5, seed: int = 0) -> pd.DataFrame:
    """Rows to score: contract columns but for the target; `price` and `colour` have gaps."""
    n, random = stores * per_store, np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "store": np.repeat(np.arange(stores), per_store),
            "day": pd.Timestamp("2013-11-01", tz="UTC") + pd.to_timedelta(np.arange(n), unit="D"),
            "price": random.normal(10, 3, n).round(2),
            "colour": random.choice(COLOURS, n),
        }
    )
    frame.loc[1, "price"], frame.loc[2, "colour"] = np.nan, None
    return frame


@cache
def booster(seed: int, categories: tuple[int, ...] = (2,)) -> bytes:
    """LightGBM text of a model of price, weekday and the categorical columns; each seed gives another one."""
    import lightgbm

    random = np.random.default_rng(seed)
    x = np.column_stack(
        [random.normal(10, 3, 80), random.integers(0, 7, 80), random.integers(0, 2, (80, len(categories)))]
    )
    data = lightgbm.Dataset(x, x[:, 0] * (seed + 1) + x[:, 1], categorical_feature=list(categories))
    params = {
        "objective": "regression",
        "num_leaves": 4,
        "verbosity": -1,
        "seed": seed,
        "deterministic": True,
    }
    text: str = lightgbm.train(params, data, num_boost_round=5).model_to_string()
    return text.encode()


def row(store: int | None, estimator: str, run: int, **changes: object) -> dict[str, object]:
    """A bundle row of one store, or of "*"."""
    spec, model = {}, None
    if estimator == "lightgbm":
        spec = {"categories": {"colour": COLOURS}}
        model = booster((store or 0) + 10 * run)
        if store is None:
            spec["categories"]["store"] = ["0", "1", "2", "3"]
            model = booster(99 + run, (2, 3))
    return {
        "partition": TENANT_WIDE if store is None else f"store={store}",
        "estimator": estimator,
        "spec": json.dumps(spec),
        "model": model,
        "naive": [float(run) if store is None else store + run / 10],
        "rows": 100,
        "metric": 1.0 + run,
        "naive_metric": 2.0 + run,
        "data_hash": f"{store}-{run}",
        "source_run": run,
    } | changes


def make(
    folder: Path,
    stores: Mapping[int, str],
    run: int,
    *,
    tenant_wide: str = "lightgbm",
    unanswered: tuple[str, ...] = (),
    per_file: int = 2,
    earlier: tuple[Path, list[str]] | None = None,
    use_case: UseCase = USE_CASE,
) -> Path:
    """A training run's bundle: an estimator by store, in part files of `per_file` stores."""
    scratch, parts, items = folder.with_name(f"{folder.name}-parts"), [], list(stores.items())
    for start in range(0, len(items), per_file):
        parts.append(scratch / f"batch-{start:04}.parquet")
        bundle.write_part(
            parts[-1], [row(store, estimator, run) for store, estimator in items[start : start + per_file]]
        )
    parts.append(scratch / "tenant-wide.parquet")
    bundle.write_part(parts[-1], [row(None, tenant_wide, run)])
    bundle.assemble(folder, parts, use_case=use_case, tenant="acme", unanswered=unanswered, earlier=earlier)
    return folder
