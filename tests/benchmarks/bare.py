"""What Orchard is measured against: a thread loop that does the same fits and predictions, and nothing else.

No validation, no quarantine, no versions, no registry, no resumption, no SQL. It reads one unit at a time from the
Parquet file, fits on `num_threads=1`, keeps each model as a text file, and writes predictions to one Parquet file.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.data import FEATURES, FULL, Size

PARAMS = {
    "objective": "regression",
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}
TREES = 100
SAMPLE_ROWS, READ_AHEAD = 100_000, 4  # of the tenant-wide model


class Loop:
    """The loop over one history file; models go to `folder`."""

    def __init__(self, size: Size, choice: str, history: Path, folder: Path, workers: int) -> None:
        import lightgbm  # before any clock starts
        import sklearn.linear_model  # noqa: F401

        lightgbm.train(PARAMS, lightgbm.Dataset(np.random.default_rng(0).random((100, 2)), np.arange(100.0)), 1)
        self.size, self.full, self.folder, self.workers = size, choice == FULL, folder, workers
        self.history, self.metadata = history, pq.read_metadata(history)
        self.first, self.second = int(size.rows * 0.6), int(size.rows * 0.8)
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, path: Path, metadata: pq.FileMetaData, unit: int, columns: list[str]) -> tuple[np.ndarray, pa.Table]:
        """Features of one unit, and its other columns."""
        with pq.ParquetFile(path, metadata=metadata) as file:
            table = file.read_row_group(unit, columns=[*FEATURES, *columns], use_threads=False)
        return np.column_stack([table[name].to_numpy() for name in FEATURES]), table.select(columns)

    def labelled(self, unit: int) -> tuple[np.ndarray, np.ndarray]:
        x, rest = self.read(self.history, self.metadata, unit, ["y"])
        return x, rest["y"].to_numpy()

    def fit(self, x: np.ndarray, y: np.ndarray, categorical: list[int] | str = "auto"):
        import lightgbm

        data = lightgbm.Dataset(x, y, params=PARAMS, categorical_feature=categorical)
        return lightgbm.train(PARAMS, data, TREES, keep_training_booster=True)

    def train(self) -> dict[str, object]:
        """All fits; how often each estimator was chosen."""
        with ThreadPoolExecutor(self.workers) as pool:
            self.everyone = self.tenant_wide(pool)
            chosen = list(pool.map(self.train_full if self.full else self.train_one, range(self.size.partitions)))
        return {name: chosen.count(name) for name in set(chosen)}

    def tenant_wide(self, pool: ThreadPoolExecutor):
        """Two fits on a sample of at most 100,000 rows, the unit being a category: one to judge, one to serve."""
        enough = -(-READ_AHEAD * SAMPLE_ROWS // self.size.rows)
        units = range(min(self.size.partitions, enough))
        every = max(1, len(units) * self.size.rows // SAMPLE_ROWS)
        parts = [(unit, *self.labelled(unit)) for unit in units]
        x = np.vstack([np.column_stack([x, np.full(len(x), unit)])[::every] for unit, x, _ in parts])
        y = np.concatenate([y[::every] for _, _, y in parts])
        early = np.concatenate([np.arange(len(y))[::every] < self.first for _, _, y in parts])
        rows = [early, np.ones(len(y), dtype=bool)]
        judging, serving = pool.map(lambda which: self.fit(x[which], y[which], [len(FEATURES)]), rows)
        (self.folder / "everyone.txt").write_text(serving.model_to_string())
        return judging

    def train_one(self, unit: int) -> str:
        """LightGBM on the training rows, its errors on validation and holdout."""
        x, y = self.labelled(unit)
        booster = self.fit(x[: self.first], y[: self.first])
        losses = (booster.predict(x[self.first :], num_threads=1) - y[self.first :]) ** 2
        naive = (y[: self.first].mean() - y[self.first :]) ** 2
        self.keep(unit, booster.model_to_string(), losses, naive)
        return "lightgbm"

    def train_full(self, unit: int) -> str:
        """LightGBM, ridge and the tenant-wide model compete on validation; the winner is fitted again on all rows."""
        x, y = self.labelled(unit)
        early, late = slice(0, self.first), slice(self.first, None)
        booster, ridge = self.fit(x[early], y[early]), self.ridge(x[early], y[early])
        losses = {
            "naive": (y[early].mean() - y[late]) ** 2,
            "tenant_wide": (self.everyone.predict(self.with_unit(x[late], unit), num_threads=1) - y[late]) ** 2,
            "linear": (ridge.predict(x[late]) - y[late]) ** 2,
            "lightgbm": (booster.predict(x[late], num_threads=1) - y[late]) ** 2,
        }
        winner = min(losses, key=lambda name: float(losses[name][: self.second - self.first].mean()))
        if winner == "lightgbm":
            text = self.fit(x, y).model_to_string()
        elif winner == "linear":
            ridge = self.ridge(x, y)
            text = json.dumps([ridge[-1].coef_.tolist(), float(ridge[-1].intercept_)])
        else:
            text = winner
        self.keep(unit, text, losses[winner], losses["naive"])
        return winner

    @staticmethod
    def ridge(x: np.ndarray, y: np.ndarray):
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(x, y)

    @staticmethod
    def with_unit(x: np.ndarray, unit: int) -> np.ndarray:
        return np.column_stack([x, np.full(len(x), unit)])

    def keep(self, unit: int, text: str, losses: np.ndarray, naive: np.ndarray) -> None:
        holdout = self.second - self.first
        errors = {"rmse": float(losses[holdout:].mean()) ** 0.5, "naive": float(naive[holdout:].mean()) ** 0.5}
        (self.folder / f"{unit}.txt").write_text(text)
        (self.folder / f"{unit}.json").write_text(json.dumps(errors))

    def score(self, scoring: Path) -> dict[str, object]:
        """Predicts the scoring file with the models on disk; one Parquet file comes out."""
        metadata = pq.read_metadata(scoring)
        schema = pa.schema([("unit", pa.int64()), ("step", pa.int64()), ("prediction", pa.float64())])
        rows = 0
        out = self.folder / "predictions.parquet"
        with ThreadPoolExecutor(self.workers) as pool, pq.ParquetWriter(out, schema, compression="zstd") as writer:
            for answers in pool.map(lambda unit: self.answers(scoring, metadata, unit), range(self.size.partitions)):
                rows += len(answers)
                writer.write_table(answers.cast(schema))
        return {"rows": rows}

    def answers(self, scoring: Path, metadata: pq.FileMetaData, unit: int) -> pa.Table:
        import lightgbm

        x, keys = self.read(scoring, metadata, unit, ["unit", "step"])
        text = (self.folder / f"{unit}.txt").read_text()
        if text.startswith("tree"):
            values = lightgbm.Booster(model_str=text).predict(x, num_threads=1)
        else:  # rare in this data: of no weight
            values = np.zeros(len(x))
        return keys.append_column("prediction", pa.array(values))


def run(
    size: Size, choice: str, history: Path, scoring: Path | None, folder: Path, workers: int
) -> dict[str, dict[str, object]]:
    """Trains and, with a scoring file, scores; seconds of wall clock and of CPU for each. For a process of its own."""
    loop = Loop(size, choice, history, folder, workers)
    figures: dict[str, dict[str, object]] = {}
    for name, work in (("training", loop.train), ("scoring", (lambda: loop.score(scoring)) if scoring else None)):
        if work is None:
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        facts = work()
        figures[name] = {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, **facts}
    return figures
