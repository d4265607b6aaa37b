"""Releases: every partition is served by the candidate, its champion or a fallback, from a folder that stands
alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tasks import bundle
from tasks.domain.errors import NotFound
from tasks.domain.outcome import Answer, Hold, Promote, Verdict
from tasks.domain.use_case import UseCase
from tasks.promotion.compose import compose, release_rows
from tasks.scorer import Scorer
from tests.promotion import bundles

YES, NO = Promote(reason="better"), Hold(reason="worse")


def predictions(folder: Path) -> pd.Series:
    return Scorer.open(folder).predict(bundles.rows()).groupby("partition")["prediction"].sum()


def verdicts(*promoted: int, held: tuple[int, ...] = ()) -> dict[str, Verdict]:
    return {f"store={store}": YES for store in promoted} | {f"store={store}": NO for store in held}


def test_first_release_promotes_or_falls_back(tmp_path: Path) -> None:
    candidate = bundles.make(tmp_path / "c", {0: "lightgbm", 1: "lightgbm"}, run=7, unanswered=("store=2",))
    release = compose(tmp_path / "r", candidate, None, verdicts(0, held=(1, 2)))
    assert {entry.partition: (entry.answer, entry.fallback) for entry in release.entries} == {
        "store=0": (Answer.OWN, False),
        "store=1": (Answer.TENANT_WIDE, True),
        "store=2": (Answer.TENANT_WIDE, True),
    }
    assert bundle.verify(tmp_path / "r", release.digest) == release.digest
    assert {row.partition for row in bundle.scan(tmp_path / "r")} == {"store=0", "*"}  # no held model in it
    assert bundle.read_index(tmp_path / "r")["store=1"].naive == [1.7]  # its own naive rule is still known


def test_champions_stay_where_held_and_where_only_they_know_the_partition(tmp_path: Path) -> None:
    first = bundles.make(tmp_path / "c1", {0: "lightgbm", 1: "lightgbm", 2: "lightgbm"}, run=7)
    compose(tmp_path / "r1", first, None, verdicts(0, 1, 2))
    second = bundles.make(tmp_path / "c2", {0: "lightgbm", 1: "lightgbm", 3: "lightgbm"}, run=8)
    release = compose(tmp_path / "r2", second, tmp_path / "r1", verdicts(0, held=(1, 3)))
    # The release stands alone: neither of the two that it was made of is needed.
    old, new, released = predictions(tmp_path / "r1"), predictions(second), tmp_path / "r2"
    shutil.rmtree(tmp_path / "r1")
    shutil.rmtree(second)
    served = predictions(released)
    assert served["store=0"] == new["store=0"] != old["store=0"]
    assert served["store=1"] == old["store=1"] != new["store=1"]
    assert served["store=2"] == old["store=2"]
    runs = {entry.partition: (entry.source_run, entry.fallback) for entry in release.entries}
    assert runs == {"store=0": (8, False), "store=1": (7, False), "store=2": (7, False), "store=3": (8, True)}


def test_release_rows_say_who_serves_and_why(tmp_path: Path) -> None:
    first = bundles.make(tmp_path / "c1", {0: "lightgbm", 1: "naive", 2: "lightgbm"}, run=7)
    compose(tmp_path / "r1", first, None, verdicts(0, 1, 2))
    second = bundles.make(tmp_path / "c2", {0: "lightgbm", 1: "lightgbm", 3: "lightgbm"}, run=8)
    judged = verdicts(0, held=(1, 3))
    release = compose(tmp_path / "r2", second, tmp_path / "r1", judged)
    table = release_rows(release, judged).set_index("partition")
    assert table["verdict"].to_dict() == {
        "store=0": "promote",
        "store=1": "hold",
        "store=2": "hold",
        "store=3": "hold",
    }
    assert table.loc["store=1", "reason"] == "worse; the champion of run 7 stays"
    assert table.loc["store=2", "reason"].startswith("no candidate: not in this training run")
    assert table.loc["store=3", "reason"] == "worse; the tenant-wide model answers"
    assert table["metric"].fillna(-1).tolist() == [9.0, 8.0, 8.0, -1.0]  # of the model that serves
    assert table["estimator"].tolist() == ["lightgbm", "naive", "lightgbm", "tenant_wide"]


def test_a_held_tenant_wide_model_leaves_the_champions(tmp_path: Path) -> None:
    first = bundles.make(tmp_path / "c1", {0: "tenant_wide"}, run=7)
    compose(tmp_path / "r1", first, None, verdicts(0))
    second = bundles.make(tmp_path / "c2", {0: "tenant_wide"}, run=8)
    compose(tmp_path / "r2", second, tmp_path / "r1", verdicts(0) | {"*": NO})
    assert predictions(tmp_path / "r2").equals(predictions(tmp_path / "r1"))
    assert bundle.read_index(tmp_path / "r2")["store=0"].source_run == 7


def test_unchanged_models_are_copied_as_whole_files(tmp_path: Path) -> None:
    first = bundles.make(tmp_path / "c1", dict.fromkeys(range(4), "lightgbm"), run=7)
    compose(tmp_path / "r1", first, None, verdicts(0, 1, 2, held=(3,)))
    kept = ["store=0", "store=1", "store=3"]
    second = bundles.make(tmp_path / "c2", {2: "lightgbm"}, run=8, earlier=(first, kept))
    compose(tmp_path / "r2", second, tmp_path / "r1", verdicts(0, 1, 2, held=(3,)))
    before, after = (json.loads((tmp_path / name / "manifest.json").read_text())["files"] for name in ("r1", "r2"))
    assert before["models/batch-0000.parquet"] in after.values()  # stores 0 and 1
    assert {entry.source_run for entry in bundle.read_index(tmp_path / "r2").values()} == {7, 8}


def test_a_champion_with_other_features_cannot_stay(tmp_path: Path) -> None:
    first = bundles.make(tmp_path / "c1", {0: "lightgbm", 1: "lightgbm"}, run=7)
    compose(tmp_path / "r1", first, None, verdicts(0, 1))
    spec = bundles.USE_CASE.model_dump(mode="json", by_alias=True)
    spec["features"]["numeric"] = ["weekday", "price"]
    second = bundles.make(tmp_path / "c2", {0: "lightgbm"}, run=8, use_case=UseCase.model_validate(spec))
    release = compose(tmp_path / "r2", second, tmp_path / "r1", verdicts(held=(0,)))
    assert {(entry.partition, entry.fallback) for entry in release.entries} == {
        ("store=0", True),
        ("store=1", True),
    }


def test_a_promoted_partition_without_a_model_is_an_error(tmp_path: Path) -> None:
    candidate = bundles.make(tmp_path / "c", {0: "lightgbm"}, run=7, unanswered=("store=1",))
    with pytest.raises(NotFound, match="store=1"):
        compose(tmp_path / "r", candidate, None, verdicts(0, 1))
