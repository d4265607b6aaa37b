"""What many start with: a Prefect flow that maps one task per partition; each logs its model by MLflow's defaults."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from tests.benchmarks.data import Size, unit_table


def run(size: Size, partitions: int, folder: Path, workers: int) -> dict[str, object]:
    """Seconds per model over `partitions` models; MLflow keeps its records in SQLite, its files in `folder`."""
    import lightgbm
    import mlflow
    import mlflow.lightgbm
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    from tests.benchmarks.bare import PARAMS, TREES
    from tests.benchmarks.data import FEATURES

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = mlflow.create_experiment("naive", artifact_location=(folder / "artifacts").as_uri())

    @task
    def train(unit: int) -> None:
        frame = unit_table(size, unit, 0, size.rows).to_pandas()
        first = int(size.rows * 0.6)
        data = lightgbm.Dataset(frame[list(FEATURES)][:first], frame["y"][:first], params=PARAMS)
        booster = lightgbm.train(PARAMS, data, TREES)
        late = frame[first:]
        with mlflow.start_run(experiment_id=experiment, run_name=f"unit-{unit}"):
            error = ((booster.predict(late[list(FEATURES)]) - late["y"]) ** 2).mean() ** 0.5
            mlflow.log_metric("rmse", error)
            mlflow.lightgbm.log_model(booster, name="model", registered_model_name=f"unit-{unit}")

    @flow(name="naive-map", task_runner=ThreadPoolTaskRunner(max_workers=workers))
    def naive() -> None:
        for future in train.map(list(range(partitions))):
            future.result()

    started = time.perf_counter()
    naive()
    seconds = time.perf_counter() - started
    return {"partitions": partitions, "seconds": seconds, "seconds_per_model": seconds / partitions}
