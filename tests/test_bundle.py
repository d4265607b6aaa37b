"""Bundles: written whole, sealed with digests, and read a row group at a time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import bundle
from tasks.domain.errors import NotFound, Tampered
from tasks.domain.outcome import Answer
from tasks.scorer import Scorer
from tests.promotion import bundles


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.*")}


def test_every_partition_has_one_entry_that_says_who_answers(tmp_path: Path) -> None:
    made = bundles.make(
        tmp_path / "b",
        {0: "lightgbm", 1: "tenant_wide", 2: "naive"},
        run=7,
        unanswered=("store=3",),
    )
    entries = bundle.read_index(made)
    assert {name: (entry.answer, entry.fallback) for name, entry in entries.items()} == {
        "*": (Answer.TENANT_WIDE, False),
        "store=0": (Answer.OWN, False),
        "store=1": (Answer.TENANT_WIDE, False),
        "store=2": (Answer.NAIVE, False),
        "store=3": (Answer.TENANT_WIDE, True),
    }
    answers = Scorer.open(made).predict(bundles.rows())
    assert answers.groupby("partition", sort=False)["answer"].first().tolist() == [
        entries[f"store={store}"].answer for store in range(4)
    ]
    assert np.isfinite(answers["prediction"]).all()


def test_without_a_tenant_wide_model_the_naive_rule_answers(tmp_path: Path) -> None:
    made = bundles.make(
        tmp_path / "b",
        {0: "lightgbm", 1: "tenant_wide"},
        run=7,
        tenant_wide="naive",
        unanswered=("store=2",),
    )
    entries = bundle.read_index(made)
    assert entries["store=1"].answer is Answer.NAIVE
    assert entries["store=1"].naive == [1.7]
    assert (entries["store=2"].naive, entries["store=2"].fallback) == ([7.0], True)
    assert Scorer.open(made).predict(bundles.rows(stores=5))["prediction"].tail(15).tolist() == [7.0] * 15


def test_equal_rows_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    rows = [bundles.row(store, "lightgbm", 7) for store in range(10)]
    bundle.write_part(tmp_path / "a.parquet", rows)
    bundle.write_part(tmp_path / "b.parquet", rows[::-1])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_assembling_again_gives_the_same_digest_and_replaces_what_was_there(tmp_path: Path) -> None:
    first = bundles.make(tmp_path / "b", {0: "lightgbm"}, run=7)
    digest = bundle.verify(first)
    (first / "models" / "left-over.parquet").write_bytes(b"half")
    assert bundle.verify(bundles.make(tmp_path / "b", {0: "lightgbm"}, run=7)) == digest == bundle.digest_of(first)


@pytest.mark.parametrize(
    "damage",
    ["models/batch-0000.parquet", "index.parquet", "bundle.json", "manifest.json"],
)
def test_a_changed_file_is_named(tmp_path: Path, damage: str) -> None:
    made = bundles.make(tmp_path / "b", {0: "lightgbm"}, run=7)
    digest = bundle.verify(made)
    content = bytearray((made / damage).read_bytes())
    content[len(content) // 2] ^= 1
    (made / damage).write_bytes(content)
    with pytest.raises(Tampered, match=damage.rpartition("/")[2]):
        bundle.verify(made, digest)


def test_missing_and_added_files_are_named(tmp_path: Path) -> None:
    made = bundles.make(tmp_path / "b", {0: "lightgbm"}, run=7)
    (made / "models" / "added.parquet").write_bytes(b"")
    with pytest.raises(Tampered, match=r"added\.parquet"):
        bundle.verify(made)
    (made / "models" / "added.parquet").unlink()
    (made / "models" / "batch-0000.parquet").unlink()
    with pytest.raises(Tampered, match=r"batch-0000\.parquet"):
        bundle.verify(made)


def test_a_consistent_forgery_is_caught_by_the_recorded_digest(tmp_path: Path) -> None:
    made = bundles.make(tmp_path / "b", {0: "lightgbm"}, run=7)
    digest = bundle.verify(made)
    (made / "bundle.json").write_text("{}")
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["files"]["bundle.json"] = hashlib.sha256(b"{}").hexdigest()
    (made / "manifest.json").write_text(json.dumps(manifest))
    assert bundle.verify(made) != digest
    with pytest.raises(Tampered, match=r"manifest\.json"):
        bundle.verify(made, digest)


def test_reused_partitions_carry_their_earlier_bytes_and_run(tmp_path: Path) -> None:
    old = bundles.make(tmp_path / "old", dict.fromkeys(range(6), "lightgbm"), run=7)
    kept = [f"store={store}" for store in (0, 1, 2, 4, 5)]
    new = bundles.make(tmp_path / "new", {3: "lightgbm"}, run=8, earlier=(old, kept))
    assert {name: entry.source_run for name, entry in bundle.read_index(new).items()} == (
        dict.fromkeys(kept, 7) | {"store=3": 8, "*": 8}
    )
    for partition in kept:
        assert bundle.read_model(new, partition) == bundle.read_model(old, partition)
    # Files without a replaced partition are taken over as they are.
    assert len(set(digests(old / "models").values()) & set(digests(new / "models").values())) == 2


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    old = bundles.make(tmp_path / "old", {0: "lightgbm"}, run=7)
    with pytest.raises(NotFound, match="store=9"):
        bundle.read_model(old, "store=9")
    with pytest.raises(NotFound, match="store=9"):
        bundles.make(tmp_path / "new", {}, run=8, earlier=(old, ["store=9"]))
    with pytest.raises(NotFound, match="tenant-wide"):
        bundle.assemble(tmp_path / "none", [], use_case=bundles.USE_CASE, tenant="acme")


@pytest.mark.parametrize("file", ["/etc/passwd", "../other/models/a.parquet", "models/../../a.parquet", "models/a.txt"])
def test_an_index_names_no_file_of_another_bundle(tmp_path: Path, file: str) -> None:
    made = bundles.make(tmp_path / "b", {0: "lightgbm"}, run=7)
    index = pq.read_table(made / "index.parquet")
    rows = [row | {"file": file} if row["partition"] == "store=0" else row for row in index.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=index.schema), made / "index.parquet")
    with pytest.raises(ValueError, match="not a file of the bundle"):
        Scorer.open(made)
