"""`orchard run` and `orchard releases`: what they select, what they leave alone, and what they reproduce."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from infra.settings import Settings
from infra.space import TenantSpace, open_space
from tests.cli.shop import history, scoring, tenant_file
from tests.cli.terminal import Terminal

TRAINING = {"min_rows": 20, "lightgbm": {"num_iterations": 20, "min_data_in_leaf": 5}}
# No boosting ends within a microsecond; a fit that takes too long is given up, and that is a failure.
HASTY = TRAINING | {"timeout_s": 1e-6, "max_failed": 1.0}


def started(orchard: Terminal, tenant: str, days: int = 40, **changes: object) -> None:
    """A tenant whose first upload went through."""
    orchard("tenants", "add", tenant_file(Path(), tenant, **changes)).worked()
    hand_in(orchard, tenant, "history", history(days))


def hand_in(orchard: Terminal, tenant: str, purpose: str, text: str) -> dict[str, object]:
    Path("handed-in.csv").write_text(text)
    [upload] = orchard("upload", tenant, "sales", purpose, "handed-in.csv", "--json").worked().json
    return upload  # type: ignore[no-any-return]


def outcomes(orchard: Terminal, tenant: str) -> dict[str, str]:
    rows = orchard("models", tenant, "sales", "--json").worked().json
    return {row["partition"]: row["outcome"] for row in rows}


def releases(orchard: Terminal, tenant: str) -> dict[int, str]:
    rows = orchard("releases", "list", tenant, "sales", "--json").worked().json
    return {row["version"]: row["status"] for row in rows}


def models(space: TenantSpace, run_id: int, folder: Path) -> pd.DataFrame:
    """The models of a training run by partition, as the bytes that its bundle holds; the tenant-wide one included."""
    path = space.registry.fetch_candidate("sales", space.records.run(run_id), folder)
    frames = [pq.read_table(part).to_pandas() for part in sorted(path.rglob("*.parquet"))]
    frame = pd.concat([frame for frame in frames if "model" in frame]).set_index("partition").sort_index()
    return frame[["estimator", "spec", "model"]]


def trained(orchard: Terminal, *words: object) -> int:
    [run] = orchard("run", *words, "--json").worked().json
    return int(run["training"])


@pytest.mark.slow
def test_an_old_dataset_version_gives_the_old_models_byte_for_byte(
    orchard: Terminal, settings: Settings, tmp_path: Path
) -> None:
    started(orchard, "again", 60, estimators=["lightgbm"], training=TRAINING)
    space = open_space(settings, "again")
    [first] = [run for run in space.records.runs("sales") if run.stage == "training"]
    later = hand_in(orchard, "again", "history", history(20, first="2026-03-01", seed=3))
    assert later["dataset_version"] != first.dataset_version
    serving = releases(orchard, "again")

    run_id = trained(orchard, "again", "--dataset-version", first.dataset_version)
    assert run_id not in (first.run_id, None)
    old, new = models(space, first.run_id, tmp_path / "old"), models(space, run_id, tmp_path / "new")
    assert len(old) >= 6
    assert old["model"].map(lambda model: len(model or b"")).max() > 1000, "without trees there is nothing to compare"
    pd.testing.assert_frame_equal(new, old)
    assert releases(orchard, "again") == serving, "looking back promotes nothing"
    assert set(outcomes(orchard, "again").values()) == {"trained"}
    orchard("run", "again", "--dataset-version", 99).failed(2, "no dataset version 99", "expected")


def test_only_the_named_partition_is_trained(orchard: Terminal) -> None:
    started(orchard, "pick")
    trained(orchard, "pick", "--partition", "store=1,sku=2")
    assert outcomes(orchard, "pick") == {
        f"store={store},sku={sku}": "trained" if (store, sku) == (1, 2) else "reused"
        for store in (1, 2)
        for sku in (1, 2, 3)
    }
    trained(orchard, "pick", "--partition", "store=1,sku=1", "--partition", "store=2,sku=3")
    assert [name for name, outcome in outcomes(orchard, "pick").items() if outcome == "trained"] == [
        "store=1,sku=1",
        "store=2,sku=3",
    ]
    orchard("run", "pick", "--partition", "store=1").failed(2, "no partition 'store=1'", "such as store=1,sku=1")


def test_nothing_new_is_nothing_to_train(orchard: Terminal) -> None:
    started(orchard, "idle")
    before = releases(orchard, "idle")
    first = trained(orchard, "idle")
    assert trained(orchard, "idle") == first
    assert releases(orchard, "idle") == before


def test_only_what_failed_is_trained_again(orchard: Terminal) -> None:
    started(orchard, "hasty", training=HASTY)
    assert set(outcomes(orchard, "hasty").values()) == {"failed"}
    reasons = [row["reason"] for row in orchard("models", "hasty", "sales", "--outcome", "failed", "--json").json]
    assert all(reasons)
    patient = tenant_file(Path(), "hasty", training=HASTY | {"timeout_s": 60})
    orchard("tenants", "add", patient, "--yes").worked()
    trained(orchard, "hasty", "--only-failed")
    assert set(outcomes(orchard, "hasty").values()) == {"trained"}


def test_too_many_failures_stop_the_run_and_say_why(orchard: Terminal) -> None:
    hasty = HASTY | {"max_failed": 0.1}
    orchard("tenants", "add", tenant_file(Path(), "stops", training=hasty)).worked()
    Path("stops.csv").write_text(history())
    orchard("upload", "stops", "sales", "history", "stops.csv").failed(
        1, "partitions failed", "at most 10%", "is stored as upload"
    )
    accounts = orchard("receipts", "stops", "--json").json
    assert [row["status"] for row in accounts if row["what"].startswith("training")] == ["failed"]
    assert any("partitions failed" in (row["error"] or "") for row in accounts if "upload" in row["what"])
    # the operator mends the cause; `run` takes the upload up again, and its old error is gone
    patient = tenant_file(Path(), "stops", training=hasty | {"timeout_s": 60})
    orchard("tenants", "add", patient, "--yes").worked()
    [upload] = orchard("run", "stops", "--json").worked().json
    assert (upload["status"], upload["error"]) == ("done", None)


def test_a_stored_upload_is_taken_up_by_run(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "later")).worked()
    Path("later.csv").write_text(history())
    [stored] = orchard("upload", "later", "sales", "history", "later.csv", "--no-run", "--json").worked().json
    assert stored["status"] == "received"
    orchard("models", "later", "sales").failed(2, "not trained yet", "orchard run later sales")
    [upload] = orchard("run", "later", "--json").worked().json
    assert (upload["upload_id"], upload["status"]) == (stored["upload_id"], "done")


def test_a_bad_upload_does_not_keep_the_next_one_waiting(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "queue")).worked()
    for name, text in {"bad.csv": "", "good.csv": history()}.items():
        Path(name).write_text(text)
        orchard("upload", "queue", "sales", "history", name, "--no-run").worked()
    answer = orchard("run", "queue", "--json").failed(1, "bad.csv was rejected", "empty")
    assert [upload["status"] for upload in answer.json] == ["rejected", "done"]


def test_a_use_case_without_data_cannot_be_run(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "bare")).worked()
    orchard("run", "bare").failed(2, "has no data yet", "orchard upload bare sales history FILE")
    orchard("run", "bare", "--stage", "promotion").failed(2, "not trained yet")
    orchard("run", "bare", "--dataset-version", "0").failed(2, "has no data yet")
    orchard("releases", "rollback", "bare", "sales").failed(2, "no earlier release")
    orchard("releases", "verdicts", "bare", "sales").failed(2, "no release yet", "orchard upload bare sales history")
    Path("early.csv").write_text(scoring())
    early = orchard("upload", "bare", "sales", "scoring", "early.csv").worked()
    assert "early.csv is scored when a release serves: orchard upload bare sales history FILE" in early.err


@pytest.mark.parametrize(
    "words",
    [
        ("--stage", "ingestion"),
        ("--stage", "scoring", "--only-failed"),
        ("--dataset-version", "-1"),
        ("--stage", "sowing"),
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit(orchard: Terminal, words: tuple[str, ...]) -> None:
    orchard("run", "anybody", *words).failed(2, words[0])


def test_releases_wait_for_approval_and_can_be_rolled_back(orchard: Terminal) -> None:
    started(orchard, "chief", gate={"approval": "manual"})
    assert releases(orchard, "chief") == {1: "challenger"}
    first = orchard("releases", "verdicts", "chief", "sales", "--json").worked().json  # nothing serves: the newest
    assert len(first) == 6
    assert all("holdout rows" in verdict["reason"] for verdict in first)
    held = orchard("releases", "verdicts", "chief", "sales", "--held", "--json").worked().json
    assert held == [verdict for verdict in first if verdict["verdict"] == "hold"]
    orchard("releases", "rollback", "chief", "sales").failed(2, "no earlier release")
    assert "release 1" in orchard("releases", "approve", "chief", "sales").worked().out
    assert releases(orchard, "chief") == {1: "champion"}
    orchard("releases", "approve", "chief", "sales").failed(2, "no release waits")

    hand_in(orchard, "chief", "history", history(20, first="2026-03-01", seed=3))
    assert releases(orchard, "chief") == {2: "challenger", 1: "champion"}
    hand_in(orchard, "chief", "scoring", scoring())
    orchard("releases", "approve", "chief", "sales").worked()
    assert releases(orchard, "chief") == {2: "champion", 1: "retired"}
    said = [orchard("releases", "verdicts", "chief", "sales", *which).worked().out for which in ((), (1,))]
    assert ["release 2 (champion): 6" in said[0], "release 1 (retired): 6" in said[1]] == [True, True]
    orchard("releases", "verdicts", "chief", "sales", 7).failed(2, "no release 7", "orchard releases list chief sales")
    assert "release 1" in orchard("releases", "rollback", "chief", "sales").worked().out
    assert releases(orchard, "chief")[1] == "champion"
    orchard("releases", "rollback", "chief", "sales", "--to", 2).worked()
    assert releases(orchard, "chief")[2] == "champion"
