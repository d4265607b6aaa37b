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
            label = _without_ids(label if ": " in label else f"{self._stage}: {label}")
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


def observe_erasure(trace: Path, stop_at: str | None = None, number: int = signal.SIGKILL) -> None:
    """The same for whatever an erasure removes, and remembers."""
    from mlflow import MlflowClient
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from deployments.leaving import erase, files, steps
    from deployments.leaving.orchestration import Orchestration
    from infra.database.audit import Audit
    from infra.database.erasures import Erasures
    from infra.database.operator import Operator
    from infra.database.removal import TenantRemoval

    effects = Effects(trace, stop_at, number)
    effects.stage("erasure")
    effects.after(Operator, "set_state", lambda _self, _tenant, state: f"state {state}")
    for name in ("begin", "finish"):
        effects.after(Erasures, name, lambda *_, name=name: name)
    for name in ("found", "done"):
        effects.after(Erasures, name, lambda _self, _id, step, *_, name=name: f"{name} {step}")
    for name in ("remove_keys", "end_jobs", "remove_secrets", "shut_out", "remove_rows", "remove_login"):
        effects.after(TenantRemoval, name, lambda *_, name=name: name)
    executing = TenantRemoval._execute

    def execute(connection: Any, statement: str, **names: str) -> None:
        executing(connection, statement, **names)
        effects.done(statement)

    TenantRemoval._execute = staticmethod(execute)  # type: ignore[method-assign]
    effects.after(Orchestration, "_delete", lambda _self, path, _id: f"delete {path}")
    effects.after(Orchestration, "_await_logs", lambda *_: "delete flow runs")
    effects.after(files, "remove", lambda location: f"remove {location.url.rpartition('home/')[2].rpartition('/')[0]}")
    effects.after(TenantRemoval, "upload_ids", lambda *_: "uploads are known")
    effects.after(TenantRemoval, "count_rows", lambda *_: "rows are counted")
    effects.after(files.TenantFiles, "remove_work", lambda *_: "remove work")
    effects.after(files, "redact", lambda path, *_: f"redact {path.name}")
    for name in ("delete_registered_model", "delete_run", "delete_experiment"):
        effects.after(MlflowClient, name, lambda *_, name=name: f"mlflow {name}")
    for name in ("_hard_delete_run", "_hard_delete_experiment"):
        effects.after(SqlAlchemyStore, name, lambda *_, name=name: f"mlflow {name}")
    effects.after(steps, "remove", lambda _settings, _tenant, isolation: f"rights of a {isolation}")
    effects.after(Audit, "record", lambda _self, action, *_, **__: f"audit {action}")
    effects.after(Audit, "forget", lambda *_: "audit forgets")
    effects.after(erase, "write", lambda *_: "certificate is written")


def _database(effects: Effects) -> None:
    from infra.database.audit import Audit
    from infra.database.records import PostgresRecords as Records

    effects.after(Audit, "record", lambda _self, action, *_, **__: f"audit {action}")
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
        effects.after(Records, name, lambda _self, batch, *_, name=name, **__: f"{name} {batch.number}")
    for name in ("finish_run", "fail_run", "publish_scores", "add_release", "set_champion", "save_health"):
        effects.after(Records, name, lambda *_, name=name: name)


def _lake(effects: Effects) -> None:
    from deltalake import DeltaTable

    from infra.lake.files import LakeFiles
    from infra.lake.predictions import LakePredictions
    from infra.lake.staging import UploadStaging
    from infra.lake.table import UseCaseTable
    from infra.lake.writing import FilesWriter

    for name in ("put", "write"):
        effects.after(LakeFiles, name, lambda _self, path, *_, name=name: f"{name} {path}")
    effects.after(LakeFiles, "delete", lambda _self, path: f"{_repeated(path)}delete {path}")
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

    from infra.registry import model
    from infra.registry.artifacts import Artifacts

    for name in MLFLOW:
        effects.after(MlflowClient, name, lambda *_, name=name, **__: f"mlflow {name}")
    effects.after(model, "save", lambda *_: "model is saved")
    effects.after_context(Artifacts, "building", lambda *_: "model's folder is in place")


def _repeated(path: str) -> str:
    """The stage of a deletion that is repeated where the run of its stage is finished already, and not opened again."""
    return "ingestion: " if path.startswith("uploads/") else ""


def _without_ids(label: str) -> str:
    """Ids differ from tenant to tenant; what is left is the same for all."""
    return re.sub(r"/training/\d+", "/training/*", re.sub(r"[0-9a-f]{32}", "*", label))
