"""What a registry has of a tenant goes for good, runs that were set aside too; behind HTTP, what is left is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.database.cluster import Cluster
from infra.database.operator import Operator
from infra.registry import MlflowRegistry
from infra.registry.handover import described, releases_of
from infra.registry.removal import entries_of, remove_entries
from infra.registry.store import client
from infra.servers import answers, free_port, mlflow_program
from tests.benchmarks.platform.running import until
from tests.infra.test_registry import log, of_tenant, release, training_run
from tests.infra.test_registry import made as made
from tests.infra.test_registry import stores as stores

NOTHING = {"models": 0, "versions": 0, "experiments": 0, "runs": 0}


@pytest.fixture
def leaving(stores: tuple[str, str], operator: Operator, tmp_path: Path, made: Path) -> MlflowRegistry:
    """A tenant with a candidate, a release with an alias, and a run that was set aside."""
    return filled(of_tenant("wheatear", operator, tmp_path), made, tmp_path)


@pytest.fixture
def staying(stores: tuple[str, str], operator: Operator, tmp_path: Path, made: Path) -> MlflowRegistry:
    """A tenant whose name begins like the other's."""
    return filled(of_tenant("wheatear-2", operator, tmp_path), made, tmp_path)


def filled(registry: MlflowRegistry, made: Path, tmp_path: Path) -> MlflowRegistry:
    with pytest.raises(FileNotFoundError):
        log(registry, made, training_run(), {"plot.png": tmp_path / "not-drawn"})
    log(registry, made, training_run(), {})
    version, *_ = release(registry, made, "first")
    registry.set_alias("demand", "champion", version)
    return registry


def test_a_tenants_entries_go_for_good_and_its_neighbours_stay(
    leaving: MlflowRegistry, staying: MlflowRegistry, postgres: Cluster
) -> None:
    training, production = postgres.training_registry_url, postgres.production_registry_url
    before = described(staying)
    assert entries_of(training, "wheatear").counts() == {"models": 1, "versions": 1, "experiments": 1, "runs": 2}
    assert entries_of(production, "wheatear").counts() == {"models": 1, "versions": 1, "experiments": 0, "runs": 0}
    assert [(use_case, version) for use_case, version, _ in releases_of(leaving)] == [("demand", 1)]
    for _ in range(2):
        for uri in (training, production):
            assert remove_entries(uri, "wheatear") == {}
            assert entries_of(uri, "wheatear").counts() == NOTHING
    assert described(staying) == before


def test_a_removal_that_was_cut_off_goes_on(leaving: MlflowRegistry, postgres: Cluster) -> None:
    uri = postgres.training_registry_url
    mlflow = client(uri)
    experiment = mlflow.get_experiment_by_name("wheatear.demand").experiment_id
    mlflow.delete_registered_model("wheatear.demand")
    mlflow.delete_experiment(experiment)  # MLflow only marks it, and its runs
    assert entries_of(uri, "wheatear").counts() == {"models": 0, "versions": 0, "experiments": 1, "runs": 2}
    remove_entries(uri, "wheatear")
    assert entries_of(uri, "wheatear").counts() == NOTHING
    remove_entries(postgres.production_registry_url, "wheatear")


@pytest.fixture
def behind_http(stores: tuple[str, str], tmp_path: Path) -> Iterator[str]:
    """MLflow's server in front of the training registry."""
    program = mlflow_program("mlflow-training", free_port(5800), stores[0], (tmp_path / "root").as_uri())
    with (tmp_path / "server.log").open("wb") as log_file:
        server = subprocess.Popen(
            program.command, env={**os.environ, **program.environment}, stdout=log_file, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: answers(program.ready) or server.poll() is not None, 90)
        assert server.poll() is None, (tmp_path / "server.log").read_text()
        yield program.url
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_behind_http_runs_are_marked_and_told(leaving: MlflowRegistry, behind_http: str, postgres: Cluster) -> None:
    assert entries_of(behind_http, "wheatear").counts() == {"models": 1, "versions": 1, "experiments": 1, "runs": 2}
    assert remove_entries(behind_http, "wheatear") == {"runs": 2, "experiments": 1}
    assert entries_of(behind_http, "wheatear").counts() == {"models": 0, "versions": 0, "experiments": 1, "runs": 2}
    collected = subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", postgres.training_registry_url],
        capture_output=True, text=True, env=os.environ | {"MLFLOW_TRACKING_URI": postgres.training_registry_url},
    )  # fmt: skip
    assert collected.returncode == 0, collected.stderr
    assert entries_of(behind_http, "wheatear").counts() == NOTHING
    remove_entries(postgres.production_registry_url, "wheatear")
