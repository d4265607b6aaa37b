"""The registries on a real MLflow store: idempotent, one tenant's names only, and models that load without
Orchard."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from infra.database.cluster import Cluster
from infra.database.connect import session
from infra.database.operator import Operator
from infra.lake.location import Location
from infra.registry import MlflowRegistry, initialise_registry, store
from infra.registry.store import client
from tasks import bundle
from tasks.domain.errors import DatabaseUnavailable, GateFailed, InvalidDefinition, NotFound, Tampered
from tasks.domain.names import Stage
from tasks.domain.run import Run, RunStatus
from tasks.scorer import Scorer
from tests.promotion import bundles
from tests.samples import sample_tenant

CHECKOUT = Path(__file__).parents[2]
USE_CASE, ROWS = bundles.USE_CASE, bundles.rows()


@pytest.fixture(scope="session")
def stores(postgres: Cluster) -> tuple[str, str]:
    """URIs of an initialised training and production registry."""
    uris = postgres.training_registry_url, postgres.production_registry_url
    for uri in uris:
        initialise_registry(uri)
        initialise_registry(uri)  # nothing is left to do
    return uris


@pytest.fixture
def registry(stores: tuple[str, str], operator: Operator, tmp_path: Path) -> MlflowRegistry:
    return of_tenant(f"t{tmp_path.name[-30:]}".replace("_", "").lower(), operator, tmp_path)


def of_tenant(tenant: str, operator: Operator, folder: Path) -> MlflowRegistry:
    """The registry as a tenant's space has it: through the tenant's own login."""
    operator.onboard(sample_tenant(tenant))
    uris = operator.cluster.tenant_registry_urls(tenant)
    artifacts = (Location(f"{folder.as_uri()}/{name}/{tenant}") for name in ("training", "production"))
    return MlflowRegistry(tenant, "free", *uris, *artifacts)


def local_path(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def training_run(number: int = 7) -> Run:
    return Run(
        run_id=number,
        key=f"key-{number}",
        use_case="demand",
        stage=Stage.TRAINING,
        status=RunStatus.RUNNING,
        started_at=datetime(2013, 11, 1, tzinfo=UTC),
    )


def log(registry: MlflowRegistry, made: Path, run: Run, artifacts: dict[str, Path]) -> str:
    return registry.log_training(
        USE_CASE,
        run,
        made,
        params={"min_rows": 40},
        metrics={"rmse": 14.5},
        tags={"dataset_version": "3"},
        example=ROWS,
        artifacts=artifacts,
    )


def release(registry: MlflowRegistry, made: Path, key: str) -> tuple[int, str, str]:
    return registry.add_release(USE_CASE, made, key=key, tags={"promoted": "2"}, example=ROWS)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return bundles.make(tmp_path / "bundle", {0: "lightgbm", 1: "tenant_wide", 2: "naive"}, run=7)


def test_a_process_that_serves_many_tenants_keeps_connections_to_few(
    stores: tuple[str, str], operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_STORES", 2)
    tenants = [f"many-{number}" for number in range(5)]
    registries = [of_tenant(tenant, operator, tmp_path) for tenant in tenants]
    for registry in registries * 2:  # those whose connections were closed answer again
        assert registry.find("demand", "champion") is None
    with session(operator.cluster.operator_url) as connection:
        logins = connection.exec_driver_sql(
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE starts_with(usename, 'tenant_many-') ORDER BY 1"
        ).scalars()
        assert list(logins) == ["tenant_many-3", "tenant_many-4"]


def test_a_training_run_is_logged_registered_and_fetched(registry: MlflowRegistry, made: Path, tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text("plot")
    version = log(registry, made, training_run(), {"plots/error.txt": tmp_path / "error.txt"})
    mlflow, name = client(registry.training_uri), f"{registry.tenant}.demand"
    candidate = mlflow.get_model_version(name, version)
    logged = mlflow.get_run(candidate.run_id)
    assert mlflow.get_experiment(logged.info.experiment_id).name == name
    assert logged.info.status == "FINISHED"
    assert (logged.data.params, logged.data.metrics) == ({"min_rows": "40"}, {"rmse": 14.5})
    assert logged.data.tags["dataset_version"] == candidate.tags["dataset_version"] == "3"
    assert candidate.tags["run_id"] == logged.data.tags["orchard.run_id"] == "7"
    artifacts = local_path(logged.info.artifact_uri)
    assert (artifacts / "plots/error.txt").read_text() == "plot"
    entry = mlflow.get_registered_model(name)
    assert entry.tags == {
        "tenant": registry.tenant,
        "tier": "free",
        "use_case": "demand",
        "kind": "regression",
        "sharing": "tenant",
    }
    fetched = registry.fetch_candidate("demand", training_run(), tmp_path / "fetched")
    assert bundle.verify(fetched) == bundle.digest_of(made) == candidate.tags["digest"]


def test_logging_a_run_again_finds_it_and_a_killed_attempt_is_replaced(
    registry: MlflowRegistry, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):  # dies with the model written, but nothing registered
        log(registry, made, training_run(), {"plots/error.png": tmp_path / "not-drawn"})
    assert log(registry, made, training_run(), {}) == log(registry, made, training_run(), {})
    mlflow = client(registry.training_uri)
    experiment = mlflow.get_experiment_by_name(f"{registry.tenant}.demand")
    assert len(mlflow.search_runs([experiment.experiment_id])) == 1
    assert len(mlflow.search_model_versions(f"name = '{registry.tenant}.demand'")) == 1
    assert len(list((tmp_path / "training" / registry.tenant / "demand").iterdir())) == 1
    assert log(registry, made, training_run(8), {}) == "2"


def test_a_release_is_added_once_per_key_and_a_partial_folder_is_replaced(
    registry: MlflowRegistry, made: Path, tmp_path: Path
) -> None:
    root = tmp_path / "production" / registry.tenant / "demand"
    for left_over in ("key-1/model/artifacts", ".key-1.partial/model"):
        (root / left_over).mkdir(parents=True)
        (root / left_over / "half").write_text("half")
    first = release(registry, made, "key-1")
    assert first == release(registry, made, "key-1") == (1, (root / "key-1/model").as_uri(), bundle.digest_of(made))
    assert release(registry, made, "key-2")[0] == 2
    assert [path for path in root.rglob("*") if path.name == "half"] == []
    assert sorted(path.name for path in root.iterdir()) == ["key-1", "key-2"]
    found = client(registry.production_uri).get_model_version(f"{registry.tenant}.demand", "1")
    assert (found.tags["promoted"], found.run_id or None) == ("2", None)
    with pytest.raises(ValueError, match="folder name"):
        release(registry, made, "../key")


def test_aliases_move_and_are_found_by_tags(registry: MlflowRegistry, made: Path) -> None:
    assert registry.find("demand", "champion") is None
    for key in ("key-1", "key-2"):
        release(registry, made, key)
    for version in (1, 2, 1):
        registry.set_alias("demand", "champion", version)
        assert registry.find("demand", "champion") == version
    registry.set_alias("demand", "challenger", 2)
    for _ in range(2):
        registry.remove_alias("demand", "challenger")
    assert registry.find("demand", "challenger") is None
    with pytest.raises(NotFound, match="release 9"):
        registry.set_alias("demand", "champion", 9)


def test_a_tenant_finds_and_names_nothing_of_another(
    registry: MlflowRegistry, made: Path, operator: Operator, tmp_path: Path
) -> None:
    other = of_tenant("globex", operator, tmp_path)
    release(other, made, "key-1")
    other.set_alias("demand", "champion", 1)
    # Even an entry whose tags claim so is not this tenant's: its name is another's.
    client(other.production_uri).set_registered_model_tag("globex.demand", "tenant", registry.tenant)
    assert registry.find("demand", "champion") is None
    with pytest.raises(NotFound), registry.open_release("demand", 1):
        pass
    for foreign in ("globex.demand", "../globex/demand", "demand' OR name = 'globex.demand", "Demand", ""):
        for call in (
            lambda name: registry.find(name, "champion"),
            lambda name: registry.set_alias(name, "champion", 1),
            lambda name: registry.check_release(name, 1),
            lambda name: registry.fetch_candidate(name, training_run(), tmp_path / "x"),
        ):
            with pytest.raises(ValidationError):
                call(foreign)


def test_a_release_is_tried_through_pyfunc_and_answers_as_the_scorer_does(registry: MlflowRegistry, made: Path) -> None:
    version, _, _ = release(registry, made, "key-1")
    shuffled = ROWS.sample(frac=1, random_state=1).assign(_partition="ignored")
    answers = registry.try_release("demand", version, shuffled)
    pd.testing.assert_frame_equal(answers, Scorer.open(made).predict(shuffled))
    scorer = registry.scorer("demand", version)
    assert scorer is registry.scorer("demand", version)
    pd.testing.assert_frame_equal(answers, scorer.predict(shuffled))


def test_gaps_and_widened_numbers_pass_the_signature(registry: MlflowRegistry, made: Path) -> None:
    version, _, _ = release(registry, made, "key-1")
    odd = ROWS.assign(store=ROWS["store"].astype(float), price=10, day=ROWS["day"].astype(str))
    odd["colour"] = None
    assert np.isfinite(registry.try_release("demand", version, odd)["prediction"]).all()


def test_a_tampered_release_neither_opens_nor_is_tried(registry: MlflowRegistry, made: Path) -> None:
    version, source, _ = release(registry, made, "key-1")
    folder = local_path(source)
    part = folder / "artifacts/bundle/models/batch-0000.parquet"
    part.write_bytes(part.read_bytes() + b"x")
    with pytest.raises(Tampered, match=r"batch-0000\.parquet"):
        registry.check_release("demand", version)
    with pytest.raises(Tampered, match=r"batch-0000\.parquet"):
        registry.try_release("demand", version, ROWS)


def test_a_release_that_does_not_predict_fails_its_trial(registry: MlflowRegistry, tmp_path: Path) -> None:
    rows = [bundles.row(0, "lightgbm", 7, model=b"tree\nno tree"), bundles.row(None, "naive", 7)]
    for number, row in enumerate(rows):
        bundle.write_part(tmp_path / f"{number}.parquet", [row])
    parts = [tmp_path / f"{number}.parquet" for number in range(2)]
    bundle.assemble(tmp_path / "bad", parts, use_case=USE_CASE, tenant=registry.tenant)
    version, _, _ = release(registry, tmp_path / "bad", "key-1")
    with pytest.raises(GateFailed, match="a prediction per row"):
        registry.try_release("demand", version, ROWS)
    no_number = bundles.make(tmp_path / "nan", {}, run=7, tenant_wide="naive")
    bundle.write_part(tmp_path / "naive.parquet", [bundles.row(None, "naive", 7, naive=[float("nan")])])
    bundle.assemble(no_number, [tmp_path / "naive.parquet"], use_case=USE_CASE, tenant=registry.tenant)
    version, _, _ = release(registry, no_number, "key-2")
    with pytest.raises(GateFailed, match="20 of 20 rows without one"):
        registry.try_release("demand", version, ROWS)


def test_a_champion_answers_the_same_where_orchard_is_not_installed(
    registry: MlflowRegistry, made: Path, tmp_path: Path
) -> None:
    version, _, _ = release(registry, made, "key-1")
    registry.set_alias("demand", "champion", version)
    ROWS.to_parquet(tmp_path / "rows.parquet")
    code = f"""
        import importlib.util, sys
        checkout = {str(CHECKOUT)!r}
        sys.path = [path for path in sys.path if path not in ("", checkout)]
        sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
        assert not any(importlib.util.find_spec(name) for name in ("tasks", "infra", "flows", "deployments"))
        import mlflow, pandas
        mlflow.set_tracking_uri({registry.production_uri!r})
        model = mlflow.pyfunc.load_model("models:/{registry.tenant}.demand@champion")
        model.predict(pandas.read_parquet("rows.parquet")).to_json("answers.json", double_precision=15)
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = pd.read_json(tmp_path / "answers.json")
    expected = Scorer.open(made).predict(ROWS)
    assert np.abs(answers["prediction"] - expected["prediction"]).max() < 1e-9
    assert answers["answer"].tolist() == expected["answer"].tolist()
    # Loading writes MLflow's own notes beside the bundle, never into it.
    registry.check_release("demand", version)


def test_tenants_that_release_at_the_same_time_keep_their_models_apart(
    stores: tuple[str, str], operator: Operator, tmp_path: Path
) -> None:
    made = {
        number: bundles.make(tmp_path / f"b{number}", {0: "lightgbm", 1: "lightgbm"}, run=number)
        for number in (1, 2, 3, 4)
    }

    def deploy(number: int) -> pd.DataFrame:
        registry = of_tenant(f"tenant-{number}", operator, tmp_path)
        log(registry, made[number], training_run(number), {})
        version, _, _ = release(registry, made[number], f"key-{number}")
        return registry.try_release("demand", version, ROWS)

    with ThreadPoolExecutor(4) as pool:
        for number, answers in zip(made, pool.map(deploy, made), strict=True):
            pd.testing.assert_frame_equal(answers, Scorer.open(made[number]).predict(ROWS))


def test_a_registry_pickles_and_keeps_its_passwords_to_itself() -> None:
    uri = "postgresql+psycopg://mlflow:hush@127.0.0.1:1/mlflow"
    registry = MlflowRegistry("acme", "free", uri, uri, Location("file:///a"), Location("file:///b"))
    assert pickle.loads(pickle.dumps(registry)) == registry
    assert "hush" not in repr(registry)
    with pytest.raises(DatabaseUnavailable) as caught:
        registry.find("demand", "champion")
    assert "hush" not in str(caught.value)


def test_local_releases_behind_http_are_refused_with_a_way_out(made: Path) -> None:
    registry = MlflowRegistry("acme", "free", "http://a", "http://b", Location("file:///a"), Location("file:///b"))
    with pytest.raises(InvalidDefinition, match="ORCHARD_PRODUCTION_ARTIFACTS_URL"):
        release(registry, made, "key-1")
