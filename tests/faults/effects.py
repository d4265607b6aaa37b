"""Durable effects of a run, in order: what it leaves in the database, on the lake and in the registries.

A kill after one effect is a kill before the next, so striking after each of them strikes at every boundary between two,
from both sides. The product knows nothing of this: a child process wraps its methods before it begins.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Label = Callable[..., str]

MLFLOW = (
    "create_experiment", "create_run", "log_batch", "set_terminated", "delete_run", "create_registered_model",
    "set_registered_model_tag", "create_model_version", "set_registered_model_alias", "delete_registered_model_alias",
)  # fmt: skip


class Effects:
    """Notes every effect in `trace`, a line each; after the effect `stop_at` the process sends itself `number`."""

    def __init__(self, trace: Path, stop_at: str | None, number: int) -> None:
        self._trace = trace.open("a", buffering=1)
        self._stop_at, self._number = stop_at, number
        self._stage = "admission"
        self._lock = threading.Lock()

    def done(self, label: str) -> None:
        """An effect is there to stay."""
        with self._lock:
            label = f"{self._stage}: {_without_ids(label)}"
            self._trace.write(f"{label}\n")
            if label == self._stop_at:
                self._stop_at = None
                os.kill(os.getpid(), self._number)

    def after(self, owner: Any, name: str, label: Label) -> None:
        """Every return of this method is an effect."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self.done(label(*args, **kwargs))
            return result

        setattr(owner, name, wrapped)

    def after_context(self, owner: Any, name: str, label: Label) -> None:
        """Every regular end of this block is an effect."""
        original = getattr(owner, name)

        @contextmanager
        def wrapped(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with original(*args, **kwargs) as value:
                yield value
            self.done(label(*args, **kwargs))

        setattr(owner, name, wrapped)

    def stage(self, stage: str) -> None:
        """Later effects belong to this stage."""
        self._stage = stage


def observe(trace: Path, stop_at: str | None = None, number: int = signal.SIGKILL) -> None:
    """Wraps whatever makes a durable effect, for the rest of this process."""
    effects = Effects(trace, stop_at, number)
    _database(effects)
    _lake(effects)
    _registries(effects)


def _database(effects: Effects) -> None:
    from infra.database.records import PostgresRecords as Records

    opening = Records.open_run

    def open_run(self: Any, stage: Any, *args: Any, **kwargs: Any) -> Any:
        effects.stage(stage.value)
        run = opening(self, stage, *args, **kwargs)
        effects.done("open run")
        return run

    Records.open_run = open_run  # type: ignore[method-assign]
    effects.after(Records, "add_upload", lambda *_: "record upload")
    effects.after(Records, "update_upload", lambda _self, _id, **fields: f"upload is {fields['status']}")
    effects.after(Records, "plan", lambda *_: "plan")
    for name in ("start_batch", "finish_training_batch", "finish_scoring_batch"):
        effects.after(Records, name, lambda _self, batch, *_, name=name: f"{name} {batch.number}")
    for name in ("finish_run", "fail_run", "publish_scores", "add_release", "set_champion", "save_health"):
        effects.after(Records, name, lambda *_, name=name: name)


def _lake(effects: Effects) -> None:
    from deltalake import DeltaTable

    from infra.lake.files import LakeFiles
    from infra.lake.predictions import LakePredictions
    from infra.lake.staging import UploadStaging
    from infra.lake.table import UseCaseTable
    from infra.lake.writing import FilesWriter

    for name in ("put", "write", "delete"):
        effects.after(LakeFiles, name, lambda _self, path, *_, name=name: f"{name} {path}")
    effects.after(FilesWriter, "_write_file", lambda _self, bucket, _rows: f"write rows of bucket {bucket}")
    effects.after(UseCaseTable, "commit", lambda *_: "commit rows")
    effects.after(UploadStaging, "discard", lambda *_: "discard staging")
    effects.after(LakePredictions, "write", lambda _self, _run, batch, _rows: f"write predictions {batch.number}")
    effects.after(LakePredictions, "publish", lambda *_: "commit predictions")
    creating = DeltaTable.create

    def create(*args: Any, **kwargs: Any) -> Any:
        table = creating(*args, **kwargs)
        effects.done("create table of predictions")
        return table

    DeltaTable.create = staticmethod(create)  # type: ignore[method-assign,assignment]


def _registries(effects: Effects) -> None:
    from mlflow import MlflowClient

    from infra.registry import model, registry

    for name in MLFLOW:
        effects.after(MlflowClient, name, lambda *_, name=name, **__: f"mlflow {name}")
    effects.after(model, "save", lambda *_: "model is saved")
    effects.after_context(registry, "building", lambda *_: "model's folder is in place")


def _without_ids(label: str) -> str:
    """Ids differ from tenant to tenant; what is left is the same for all."""
    return re.sub(r"/training/\d+", "/training/*", re.sub(r"[0-9a-f]{32}", "*", label))
