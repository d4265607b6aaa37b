"""MLflow's stores: clients for explicit URIs, and their first initialisation.

Nothing here, nor in the modules beside it, touches MLflow's process-wide tracking or registry URI: runs of
several tenants are concurrent in one process.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from infra.database.connect import RETRY_WAITS_S
from infra.registry.policies import confine_tenants
from tasks.bundle import link_or_copy
from tasks.domain.errors import DatabaseUnavailable, NotFound

Method = TypeVar("Method", bound=Callable[..., Any])

MAX_STORES = 16  # whose connections a process keeps open; one tenant's runs need two
_engines: OrderedDict[str, list[Any]] = OrderedDict()
_engines_lock = threading.Lock()

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # or models carry the uv.lock of whatever folder this is
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def _before_import() -> None:
    """MLflow reads these when it is imported. What the operator has set stays."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def import_mlflow() -> None:
    """What `client` would import on first use, for those whom that would keep waiting then."""
    _before_import()
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def client(uri: str) -> Any:
    """A client of the tracking store and model registry at `uri` (a database URL, or http). MLflow is
    imported here, on first use.

    MLflow keeps stores and their connection pools per process and URI for good. Of those used least recently the
    connections are closed, so that a process that serves hundreds of tenants does not keep some to each of them."""
    _before_import()
    _reach(uri)
    from mlflow import MlflowClient

    mlflow = MlflowClient(tracking_uri=uri, registry_uri=uri)
    stores = (mlflow._tracking_client.store, mlflow._get_registry_client().store)
    with _engines_lock:
        _engines[uri] = [store.engine for store in stores if hasattr(store, "engine")]  # there is none behind http
        _engines.move_to_end(uri)
        evicted = []
        while len(_engines) > MAX_STORES:
            evicted += _engines.popitem(last=False)[1]
    for engine in evicted:
        engine.dispose()  # closes what nobody uses just now, and stays fit for use
    return mlflow


@lru_cache(maxsize=100)
def _reach(uri: str) -> None:
    """Raises `DatabaseUnavailable` at once, where MLflow's first connection would try for two minutes."""
    if uri.startswith("http"):
        return
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import DBAPIError

    try:
        create_engine(uri, poolclass=NullPool).connect().close()
    except DBAPIError as error:
        raise _unavailable(uri) from error


def initialise_registry(uri: str) -> None:
    """Creates or migrates MLflow's tables in an empty database. Call it once, before any concurrent use: the
    migrations take seconds and are not safe beside one another. Does nothing to tables that are there, or
    behind http. Tenants' logins are let in, each to its own rows."""
    with answering(uri):
        client(uri).search_registered_models(max_results=1)
        client(uri).search_experiments(max_results=1)
    if not uri.startswith("http"):
        confine_tenants(uri)


def patient(method: Method) -> Method:
    """Calls a method again for about ten seconds while the database is away, as `infra.database` does.

    The method must be safe to repeat.
    """

    @wraps(method)
    def calling(*args: Any, **kwargs: Any) -> Any:
        for wait_s in RETRY_WAITS_S:
            try:
                return method(*args, **kwargs)
            except DatabaseUnavailable:
                time.sleep(wait_s)
        return method(*args, **kwargs)

    return calling  # type: ignore[return-value]


@contextmanager
def answering(uri: str, what: str = "the registry entry") -> Iterator[None]:
    """Turns MLflow's errors into ours: no such entry → `NotFound`, no connection → `DatabaseUnavailable`."""
    _before_import()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import InterfaceError, OperationalError

    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(f"{what} does not exist", where=_public(uri)) from error
        if error.error_code == "TEMPORARILY_UNAVAILABLE" or isinstance(
            error.__cause__, InterfaceError | OperationalError
        ):
            raise _unavailable(uri) from error
        raise
    except (InterfaceError, OperationalError) as error:
        raise _unavailable(uri) from error


def _unavailable(uri: str) -> DatabaseUnavailable:
    return DatabaseUnavailable("the model registry does not answer", where=_public(uri), hint="orchard status")


def _public(uri: str) -> str:
    """The URI without the password, for messages."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return uri.replace(f":{parts.password}@", ":***@")


def add_artifact(source: Path, target: Path) -> None:
    """A file or folder among a run's artifacts."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        link_or_copy(source, target)


def log_values(
    mlflow: Any, run_id: str, params: Mapping[str, object], metrics: Mapping[str, float], timestamp_ms: int
) -> None:
    """Parameters and metrics in one call."""
    from mlflow.entities import Metric, Param

    mlflow.log_batch(
        run_id,
        metrics=[Metric(name, float(value), timestamp_ms, 0) for name, value in metrics.items()],
        params=[Param(name, str(value)) for name, value in params.items()],
    )
