"""What reaches a tenant's models: corrections, late files, another gate, a rollback, a mended contract."""

from __future__ import annotations

from pathlib import Path

from infra.settings import Settings
from infra.space import open_space
from tests.cli.shop import history, sales, scoring, tenant_file
from tests.cli.terminal import Terminal
from tests.cli.test_runs import TRAINING, hand_in, outcomes, releases, started
from tests.samples import SALES


def test_corrected_actuals_are_learned(orchard: Terminal) -> None:
    started(orchard, "corrected", estimators=["lightgbm"], training=TRAINING)
    frame = sales(40)
    article = (frame["store"] == 1) & (frame["sku"] == 2)
    hand_in(
        orchard,
        "corrected",
        "actuals",
        frame[article].assign(sales=lambda f: f["sales"] + 5)[["store", "sku", "day", "sales"]].to_csv(index=False),
    )
    orchard("run", "corrected", "sales").worked()
    changed = [name for name, outcome in outcomes(orchard, "corrected").items() if outcome == "trained"]
    assert changed == ["store=1,sku=2"]


def test_actuals_that_come_again_are_counted_once(orchard: Terminal, settings: Settings) -> None:
    """Whoever sends the month so far, every day."""
    started(orchard, "repeats")
    frame = sales(3, first="2026-06-01")
    columns = ["store", "sku", "day", "sales"]
    hand_in(orchard, "repeats", "scoring", frame.drop(columns="sales").to_csv(index=False))
    records = open_space(settings, "repeats").records
    for days in (1, 2, 3):
        so_far = frame[frame["day"].isin(sorted(frame["day"].unique())[:days])]
        hand_in(orchard, "repeats", "actuals", so_far[columns].to_csv(index=False))
        assert records.health("sales")["rows"].sum() == len(so_far)


def test_an_upload_that_is_merged_late_is_learned(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "late", estimators=["lightgbm"], training=TRAINING)).worked()
    frame = sales(40)
    corrections = frame[(frame["store"] == 2) & (frame["sku"] == 3)].assign(sales=lambda f: f["sales"] * 2)
    hand_in(orchard, "late", "history", history(40, seed=1))
    Path("first.csv").write_text(corrections.to_csv(index=False))
    orchard("upload", "late", "sales", "history", "first.csv", "--no-run").worked()
    hand_in(orchard, "late", "history", history(5, first="2026-03-01"))
    orchard("run", "late", "sales").worked()
    assert outcomes(orchard, "late")["store=2,sku=3"] == "trained"


def test_rows_that_come_again_unchanged_change_nothing(orchard: Terminal) -> None:
    started(orchard, "cumulative", estimators=["lightgbm"], training=TRAINING)
    everything = sales(40)
    more = sales(45).loc[lambda f: f["day"] >= everything["day"].max()]
    more = more[(more["store"] == 1) & (more["sku"] == 1) & (more["day"] > everything["day"].max())]
    hand_in(orchard, "cumulative", "history", everything.to_csv(index=False) + more.to_csv(index=False, header=False))
    changed = [name for name, outcome in outcomes(orchard, "cumulative").items() if outcome == "trained"]
    assert changed == ["store=1,sku=1"]


def test_the_tenant_wide_model_grows_where_nothing_else_is_trained(orchard: Terminal, settings: Settings) -> None:
    """Of a use case whose partitions all have too few rows it is the only model."""
    started(orchard, "young", days=8)
    hand_in(orchard, "young", "history", history(8, first="2026-03-01"))
    assert set(outcomes(orchard, "young").values()) == {"rejected"}
    space = open_space(settings, "young")
    first, second = (release.training_run for release in reversed(space.records.releases("sales")))
    served = space.records.verdicts("sales", 2)
    assert set(served["answer"]) == {"tenant_wide"}
    assert set(served["source_run"]) == {second} != {first}


def test_a_file_without_one_good_row_is_rejected_whatever_is_tolerated(orchard: Terminal) -> None:
    contract = SALES["contract"] | {"max_bad_rows": 1.0}
    orchard("tenants", "add", tenant_file(Path(), "tolerant", contract=contract)).worked()
    Path("bad.csv").write_text(sales(5).assign(price=-1).to_csv(index=False))
    orchard("upload", "tolerant", "sales", "history", "bad.csv").failed(1, "30 of 30 rows are bad")
    Path("mixed.csv").write_text(sales(5).assign(price=[1.0] + [-1.0] * 29).to_csv(index=False))
    orchard("upload", "tolerant", "sales", "history", "mixed.csv").worked()


def test_a_champion_that_another_metric_judged_is_no_rival(orchard: Terminal, settings: Settings) -> None:
    """A mean absolute error is below the root of the mean squared one, whatever the model."""
    options = {"estimators": ["lightgbm"], "training": TRAINING}
    started(orchard, "measured", gate={"metric": "mae", "max_regression": 0.0}, **options)
    assert releases(orchard, "measured") == {1: "champion"}
    gate = {"metric": "rmse", "max_regression": 0.0}
    orchard("tenants", "add", tenant_file(Path(), "measured", gate=gate, **options), "--yes").worked()
    orchard("run", "measured", "sales").worked()
    records = open_space(settings, "measured").records
    before, after = records.verdicts("sales", 1), records.verdicts("sales", 2)
    assert (before["verdict"] == "promote").any()
    assert after["verdict"].tolist() == before["verdict"].tolist()


def test_nothing_is_held_for_a_champion_that_cannot_stay(orchard: Terminal, settings: Settings) -> None:
    """With other features the old models go: held for them, a partition would be left to a fallback."""
    options = {"estimators": ["lightgbm"], "training": TRAINING, "gate": {"max_regression": 0.0}}
    started(orchard, "lessened", **options)
    fewer = {"numeric": ["price"], "categorical": []}  # errors are larger
    orchard("tenants", "add", tenant_file(Path(), "lessened", features=fewer, **options), "--yes").worked()
    orchard("run", "lessened", "sales").worked()
    after = open_space(settings, "lessened").records.verdicts("sales", 2)
    assert not after["reason"].str.contains("of the champion").any()
    assert (after["verdict"] == "promote").any()


def test_another_gate_makes_another_release(orchard: Terminal) -> None:
    started(orchard, "gated", gate={"max_error": 1e-6})
    assert releases(orchard, "gated") == {1: "champion"}  # fallbacks only: nothing passed
    orchard("tenants", "add", tenant_file(Path(), "gated", gate={"max_error": 1e6}), "--yes").worked()
    orchard("run", "gated", "sales").worked()
    assert releases(orchard, "gated") == {2: "champion", 1: "retired"}
    orchard("run", "gated", "sales").worked()
    assert len(releases(orchard, "gated")) == 2


def test_predictions_follow_a_rollback(orchard: Terminal) -> None:
    started(orchard, "rolled", estimators=["lightgbm"], training=TRAINING)
    hand_in(orchard, "rolled", "scoring", scoring())
    hand_in(orchard, "rolled", "history", history(60, seed=9))

    def serving() -> set[int]:
        orchard("run", "rolled", "sales", "--stage", "scoring").worked()
        rows = orchard("results", "rolled", "sales", "--limit", 100, "--json").json
        assert len(rows) == 18
        return {row["release_version"] for row in rows}

    assert serving() == {2}
    orchard("releases", "rollback", "rolled", "sales").worked()
    assert serving() == {1}
    orchard("releases", "rollback", "rolled", "sales", "--to", 2).worked()
    assert serving() == {2}


def test_after_a_rollback_releases_wait_for_approval_until_one_is_approved(orchard: Terminal) -> None:
    started(orchard, "wary", estimators=["lightgbm"], training=TRAINING)
    hand_in(orchard, "wary", "history", history(60, seed=9))
    waits = "waits for `orchard releases approve wary sales`"
    assert waits not in orchard("releases", "list", "wary", "sales").worked().err
    assert waits in orchard("releases", "rollback", "wary", "sales").worked().err
    assert waits in orchard("releases", "list", "wary", "sales").worked().err
    hand_in(orchard, "wary", "history", history(60, seed=11))
    assert releases(orchard, "wary") == {3: "challenger", 2: "retired", 1: "champion"}
    orchard("releases", "approve", "wary", "sales").worked()
    hand_in(orchard, "wary", "history", history(60, seed=13))
    assert releases(orchard, "wary") == {4: "champion", 3: "retired", 2: "retired", 1: "retired"}
    entries = orchard("audit", "list", "wary", "--action", "release.promote", "--json").worked().json
    aliases = [entry["details"]["alias"] for entry in entries[::-1]]
    assert aliases == ["champion", "champion", "challenger", "champion"]


def test_a_rejected_file_passes_once_the_contract_fits(orchard: Terminal) -> None:
    orchard("tenants", "add", tenant_file(Path(), "mended")).worked()
    Path("wide.csv").write_text(sales(40).assign(weather="dry").to_csv(index=False))
    orchard("upload", "mended", "sales", "history", "wide.csv").failed(1, "unknown column: weather")
    changed = tenant_file(Path(), "mended")
    changed.write_text(changed.read_text().replace("contract:", "contract:\n    extra_columns: ignore", 1))
    orchard("tenants", "add", changed, "--yes").worked()
    [upload] = orchard("upload", "mended", "sales", "history", "wide.csv", "--json").worked().json
    assert (upload["status"], upload["rows_accepted"], upload["error"]) == ("done", 240, None)
