"""Files of registry entries: reached as the tenant alone, wherever an entry says they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from infra.database.cluster import Cluster
from infra.lake.files import LakeFiles
from infra.lake.location import Location
from infra.places import Places
from infra.registry import MlflowRegistry, initialise_registry
from infra.registry.artifacts import Artifacts
from infra.registry.store import client
from tasks import bundle
from tasks.domain.errors import Permanent, Tampered
from tasks.domain.tenant import Isolation
from tasks.scorer import Scorer
from tests.infra.test_registry import ROWS, log, release, training_run
from tests.isolation.store import Store, provided
from tests.promotion import bundles


@pytest.fixture(scope="module")
def uris(postgres: Cluster) -> tuple[str, str]:
    found = postgres.training_registry_url, postgres.production_registry_url
    for uri in found:
        initialise_registry(uri)
    return found


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return bundles.make(tmp_path / "bundle", {0: "lightgbm", 1: "tenant_wide", 2: "naive"}, run=7)


def on_disk(folder: Path, tenant: str) -> Places:
    """The places of a tenant in a folder, as settings would name them."""
    roots = (Location((folder / name).as_uri()) for name in ("lake", "training", "production"))
    return Places(*(root.child(tenant) for root in roots))


def registry_of(tenant: str, places: Places, uris: tuple[str, str]) -> MlflowRegistry:
    return MlflowRegistry(tenant, "free", *uris, places.training_artifacts, places.production_artifacts)


@pytest.mark.parametrize("isolation", [Isolation.POOL, Isolation.SILO])
def test_a_bundle_travels_through_both_registries_with_the_role_alone(
    store: Store, uris: tuple[str, str], made: Path, tmp_path: Path, isolation: Isolation
) -> None:
    settings, tenant = store.settings(tmp_path, f"bundles-{isolation}"), f"bundled-{isolation}"
    places = provided(settings, tenant, isolation)
    registry = registry_of(tenant, places, uris)
    (tmp_path / "plot.txt").write_text("plot")
    with pytest.raises(FileNotFoundError):  # dies with the model written, but nothing registered
        log(registry, made, training_run(), {"plots/error.png": tmp_path / "not-drawn"})
    log(registry, made, training_run(), {"plots/error.txt": tmp_path / "plot.txt"})
    runs = {path.split("/")[1] for path in LakeFiles(places.training_artifacts).list("demand")}
    assert len(runs) == 1
    fetched = registry.fetch_candidate("demand", training_run(), tmp_path / "fetched")
    assert bundle.verify(fetched) == bundle.digest_of(made)
    LakeFiles(places.production_artifacts).write(
        "demand/key-1/model/artifacts/bundle/left-over", b"of a killed attempt"
    )
    version, source, digest = release(registry, fetched, "key-1")
    assert (source, digest) == (f"{places.production_artifacts.url}/demand/key-1/model", bundle.digest_of(made))
    registry.check_release("demand", version)
    expected = Scorer.open(made).predict(ROWS)
    pd.testing.assert_frame_equal(registry.try_release("demand", version, ROWS), expected)
    pd.testing.assert_frame_equal(registry.scorer("demand", version).predict(ROWS), expected)


def forged(registry: MlflowRegistry, source: str, digest: str) -> int:
    """A version of the tenant's own entry that somebody made by hand."""
    mlflow, name = client(registry.production_uri), f"{registry.tenant}.demand"
    if not mlflow.search_registered_models(f"name = '{name}'"):
        mlflow.create_registered_model(name, tags={"tenant": registry.tenant, "use_case": "demand"})
    return int(mlflow.create_model_version(name, source=source, tags={"digest": digest}).version)


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_an_entry_that_leads_elsewhere_is_not_followed(
    store: Store, uris: tuple[str, str], made: Path, tmp_path: Path, kind: str
) -> None:
    names = f"a-{kind}", f"b-{kind}"
    if kind == "disk":
        mine, theirs = (on_disk(tmp_path, name) for name in names)
    else:
        settings = store.settings(tmp_path, "forged")
        mine, theirs = (provided(settings, name) for name in names)
    thief, victim = registry_of(names[0], mine, uris), registry_of(names[1], theirs, uris)
    _, source, digest = release(victim, made, "key-1")
    own = mine.production_artifacts.url
    ways = [
        source,
        f"{own}/../{names[1]}/demand/key-1/model",
        f"{own}/demand/%2e%2e/%2e%2e/{names[1]}/demand/key-1/model" if kind == "disk" else f"{own}/./x",
        f"{own}-2/demand/key-1/model",
        f"{own}/demand//key-1",
        f"{own}/demand/key-1/model?x=1#y",
        str(theirs.production_artifacts.local or "file:///etc"),
        "file:///etc/passwd",
        "https://127.0.0.1:9/model",
        "s3://elsewhere/model",
    ]
    for way in ways:
        version = forged(thief, way, digest)
        for method, rows in ((thief.check_release, ()), (thief.scorer, ()), (thief.try_release, (ROWS,))):
            with pytest.raises(Tampered, match="not the tenant's"):
                method("demand", version, *rows)  # type: ignore[operator]
    mlflow = client(thief.training_uri)
    mlflow.create_experiment(f"{names[0]}.demand", artifact_location=theirs.training_artifacts.child("demand").url)
    with pytest.raises(Tampered, match="not the tenant's"):
        log(thief, made, training_run(), {})


def test_links_among_the_files_of_an_entry_are_refused(uris: tuple[str, str], made: Path, tmp_path: Path) -> None:
    mine, theirs = on_disk(tmp_path, "linked"), on_disk(tmp_path, "other")
    registry, other = registry_of("linked", mine, uris), registry_of("other", theirs, uris)
    version, _, _ = release(registry, made, "key-1")
    release(other, made, "key-1")
    root, elsewhere = mine.production_artifacts.local, theirs.production_artifacts.local
    assert root is not None
    assert elsewhere is not None
    part = "demand/key-1/model/artifacts/bundle/models/batch-0000.parquet"
    for place in (part, "demand/key-1/model/artifacts", "demand/key-1", "demand"):
        there = root / place
        shutil.move(there, tmp_path / "kept")
        os.symlink(elsewhere / place, there)  # the same bytes: no digest would tell
        for attempt in (registry.check_release, registry.scorer):
            with pytest.raises((Tampered, Permanent), match="link"):
                attempt("demand", version)
        there.unlink()
        shutil.move(tmp_path / "kept", there)
    registry.check_release("demand", version)
    os.symlink(elsewhere / "demand", root / "demand-2")
    with pytest.raises(Permanent, match="link"):
        Artifacts(mine.production_artifacts).remove(f"{mine.production_artifacts.url}/demand-2/key-1")
    with (
        pytest.raises(Permanent, match="link"),
        Artifacts(mine.production_artifacts).building(f"{mine.production_artifacts.url}/demand-2/key-2/model"),
    ):
        pass
    assert (elsewhere / part).is_file()


@pytest.mark.parametrize("file", ["MLmodel", "orchard_model.py"])
def test_a_model_whose_code_was_changed_is_not_run(
    uris: tuple[str, str], made: Path, tmp_path: Path, file: str
) -> None:
    registry = registry_of(f"coded-{file[0].lower()}", on_disk(tmp_path, "coded"), uris)
    version, source, _ = release(registry, made, "key-1")
    changed = Path(source.removeprefix("file://")) / file
    changed.write_text(changed.read_text().replace("artifacts/bundle", "artifacts/bundle/") + "\n")
    with pytest.raises(Tampered, match="code is not what was written"):
        registry.try_release("demand", version, ROWS)


def test_what_an_object_is_called_leads_nowhere(store: Store, tmp_path: Path) -> None:
    """Keys may hold `..`, and a download makes paths of them."""
    place = provided(store.settings(tmp_path, "keys"), "acme").production_artifacts
    s3 = store.client("s3", place.credentials())
    s3.put_object(Bucket=place.bucket, Key=f"{place.prefix}/demand/k/../../../../evil", Body=b"1")
    with pytest.raises(Permanent, match="not a path inside"):
        Artifacts(place).fetched(f"{place.url}/demand/k", tmp_path / "into" / "deep" / "deeper")
    assert not list(tmp_path.rglob("evil"))
