"""The harness runs, at a size where no figure means anything."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.benchmarks import data
from tests.benchmarks.run import arguments

SMALL = ["--partitions", "6", "--rows", "200", "--workers", "1"]


def bench(*options: str) -> dict:
    """Results of a run in a process of its own; its home is not pytest's folder, which PostgreSQL's user cannot
    enter.
    """
    with tempfile.TemporaryDirectory(prefix="orchard-bench-") as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, "-m", "tests.benchmarks.run", *SMALL, *options, "--json", str(path)]
        subprocess.run([*command, "--home", f"{folder}/home"], check=True, capture_output=True, text=True, timeout=250)
        return json.loads(path.read_text())


@pytest.mark.slow
def test_everything_but_the_large_one_is_measured():
    result = bench("--only", "training,e2e,one-percent,naive-map", "--naive-partitions", "1")
    figures = {(figure["benchmark"], figure["name"]): figure["value"] for figure in result["figures"]}
    for choice in (data.ONE, data.FULL):
        assert figures[choice, "training ratio"] > 0
        assert figures[choice, "file-to-SQL ratio"] > 0
        steps = {step["name"]: step for step in result["steps"][choice]}
        assert steps["training"]["recorded_s"] > 0
        assert "finish_training" in steps["training"]["parts"]
        # The loop and Orchard did the same work: every partition has one of its models.
        assert sum(v for k, v in result["bare"][choice][0]["training"].items() if k not in ("seconds", "cpu_s")) == 6
        assert result["bare"][choice][0]["scoring"]["rows"] == 6 * 200
    assert figures["one-percent", "partitions trained again"] == 1
    assert figures["one-percent", "share of the first training"] > 0
    assert figures["naive-map", "log_model per partition"] > 0


@pytest.mark.slow
def test_the_large_one_is_measured():
    figures = {figure["name"]: figure["value"] for figure in bench("--only", "large")["figures"]}
    assert figures["training ratio"] > 0
    assert 0 < figures["peak memory (RSS)"] < 4


@pytest.mark.slow
def test_metering_is_measured():
    command = [sys.executable, "-m", "tests.benchmarks.metering", "--partitions", "6", "--rows", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)  # 1: the share is too much
    shown = [line.split("│")[1:4] for line in done.stdout.splitlines() if line.startswith("│")]
    measured = {name.strip(): (int(calls), float(cpu_s)) for name, calls, cpu_s in shown if calls.strip()}
    for part in ("readings of the process", "booking of batches", "booking of the rest"):
        assert measured[part] > (0, 0.0), done.stdout + done.stderr
    assert done.stdout.count("with the backends") == 2


@pytest.mark.slow
def test_a_short_soak_passes():
    command = [sys.executable, "-m", "tests.benchmarks.soak", "--minutes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_data_is_the_same_whenever_it_is_made(tmp_path):
    size = data.Size(3, 50)
    for name in ("one", "two"):
        data.write_history(tmp_path / name, size)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    history = pq.read_table(tmp_path / "one")
    assert history.num_rows == 150
    assert history.column_names == ["unit", "step", *data.FEATURES, "y"]
    data.write_scoring(tmp_path / "scoring", size)
    later = pq.read_table(tmp_path / "scoring")
    assert "y" not in later.column_names
    assert min(later["step"].to_pylist()) > max(history["step"].to_pylist())


def test_one_unit_in_a_hundred_is_touched(tmp_path):
    size = data.Size(250, 20)
    data.write_update(tmp_path / "update", size)
    update = pq.read_table(tmp_path / "update").to_pandas()
    assert sorted(update["unit"].unique()) == [0, 100, 200]
    assert list(update.loc[update["unit"] == 100, "step"]) == [18, 19, 20, 21]  # half of them are known rows


def test_options_are_checked():
    assert arguments([]).only == {"training", "e2e", "one-percent", "naive-map"}
    assert arguments(["--large"]).partitions == 10_000
    with pytest.raises(SystemExit):
        arguments(["--only", "speed"])
