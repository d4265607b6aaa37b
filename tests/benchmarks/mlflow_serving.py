"""MLflow's own scoring server, to compare with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import psutil

from infra import servers
from tests.benchmarks.data import FEATURES


def split(columns: Sequence[str]) -> str:
    """The row of partition 0, as MLflow's server wants it."""
    values = {"unit": 0, "step": 1}
    data = [[values.get(name, 0.5) for name in columns]]
    return json.dumps({"dataframe_split": {"columns": list(columns), "data": data}})


@contextmanager
def mlflow_serves(model: Path, port: int, log: Path) -> Iterator[psutil.Process]:
    """MLflow's own scoring server of a model, with as many processes as it starts by default: one."""
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-h", "127.0.0.1", "-p", str(port),
        "--env-manager", "local",
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env={**os.environ, "PATH": path}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not servers.answers(f"http://127.0.0.1:{port}/ping"):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"mlflow models serve did not come up: {log.read_text()[-500:]}")
            time.sleep(0.3)
        tree = psutil.Process(process.pid).children(recursive=True)
        serving = [each for each in tree if any("uvicorn" in word for word in each.cmdline())]
        workers = [each for each in serving if not each.children()]
        assert len(workers) == 1, [each.cmdline() for each in tree]
        yield workers[0]
    finally:
        tree = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        psutil.wait_procs(tree, 30)  # what they still do would be measured with what comes next


def mlflow_models(booster: lightgbm.Booster, folder: Path) -> tuple[Path, Path]:
    """One of the models as MLflow saves it: with a signature, and without."""
    import mlflow.lightgbm
    from mlflow.models import infer_signature

    rows = pd.DataFrame([[0.5] * len(FEATURES)], columns=list(FEATURES))
    checked, unchecked = folder / "mlflow-checked", folder / "mlflow-unchecked"
    requirements, signature = ["mlflow", "lightgbm"], infer_signature(rows, np.array([0.5]))
    mlflow.lightgbm.save_model(booster, str(checked), pip_requirements=requirements, signature=signature)
    mlflow.lightgbm.save_model(booster, str(unchecked), pip_requirements=requirements)
    return checked, unchecked
