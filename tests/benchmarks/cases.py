"""The benchmarks: each compares Orchard with a bare loop over the same data in the same run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from deployments.platform import Platform
from tasks.domain.names import Purpose
from tests.benchmarks import bare, data, naive_map
from tests.benchmarks.data import FULL, ONE, Size
from tests.benchmarks.memory import PeakMemory
from tests.benchmarks.stages import Course, Step, server_pids

LARGE = Size(10_000, 4_000)


@dataclass
class Figure:
    """One result. `limit` is what it should not exceed, or reach with `at_least`. `note` says the single rounds
    that it is the mean of."""

    benchmark: str
    name: str
    value: float
    unit: str
    limit: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Results:
    """All that was measured."""

    figures: list[Figure] = field(default_factory=list)
    steps: dict[str, list[Step]] = field(default_factory=dict)
    bare: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(
        self, benchmark: str, name: str, value: float, unit: str, limit: float | None = None, **options: Any
    ) -> None:
        """`options` are a `Figure`'s other fields."""
        self.figures.append(Figure(benchmark, name, value, unit, limit, **options))


@dataclass
class Bench:
    """What the benchmarks share: sizes, files, a platform that runs."""

    running: Platform
    size: Size
    workers: int
    folder: Path
    say: Callable[[str], None]
    results: Results = field(default_factory=Results)

    def elsewhere(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function in a fresh process, so that its memory and its caches are not those of the run."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()

    def file(self, name: str, write: Callable[[Path, Size], None]) -> Path:
        """A file of synthetic data, made on first use."""
        path = self.folder / f"{name}-{self.size.partitions}x{self.size.rows}-{self.size.seed}.parquet"
        if not path.exists():
            self.say(f"writing {name} data")
            self.elsewhere(write, path, self.size)
        return path

    def bare(self, choice: str, score: bool) -> dict[str, dict[str, float]]:
        """One round of the bare loop."""
        self.say(f"{choice}: bare loop")
        history = self.file("history", data.write_history)
        scoring = self.file("scoring", data.write_scoring) if score else None
        folder = self.folder / "bare"
        figures = self.elsewhere(bare.run, self.size, choice, history, scoring, folder, self.workers)
        shutil.rmtree(folder)
        self.results.bare.setdefault(choice, []).append(figures)
        return figures  # type: ignore[no-any-return]

    def warm_up(self) -> None:
        """Imports and first connections, which a long-lived process pays once: a small history through the pipeline."""
        self.say("warming up")
        small = Size(2, 200, seed=99)
        path = self.folder / "warm-up.parquet"
        self.elsewhere(data.write_history, path, small)
        for use_case in data.WARM_UP:
            course = Course(self.running, use_case)
            upload = course.admit("admission", Purpose.HISTORY, path)
            course.pipeline(upload)

    def journey(self, choice: str, wanted: set[str], label: str | None = None) -> None:
        """From the history file to predictions in SQL, with a round of the bare loop before and one after."""
        label = label or choice
        score = "e2e" in wanted
        rounds = [self.bare(choice, score)]
        course = Course(self.running, choice)
        self.say(f"{label}: ingestion of {self.size.partitions:,} × {self.size.rows:,} rows")
        upload = course.ingest("history", Purpose.HISTORY, self.file("history", data.write_history))
        self.say(f"{label}: training")
        training = course.train(upload.dataset_version)
        self.say(f"{label}: promotion")
        course.promote()
        whole = sum(step.seconds for step in course.steps)
        if choice == FULL and "one-percent" in wanted:
            self.one_percent(training)
        if score:
            self.say(f"{label}: scoring")
            before = len(course.steps)
            upload = course.ingest("scoring", Purpose.SCORING, self.file("scoring", data.write_scoring))
            course.score(upload)
            whole += sum(step.seconds for step in course.steps[before:])
        rounds.append(self.bare(choice, score))
        course.ask_prefect()
        self.results.steps[label] = course.steps
        self._compare(label, rounds, course, whole if score else None)

    def _compare(
        self, label: str, rounds: list[dict[str, dict[str, float]]], course: Course, whole: float | None
    ) -> None:
        add = self.results.add
        training = next(step for step in course.steps if step.name == "training")
        bare_s = _mean(rounds, "training", "seconds")
        add(label, "bare training", bare_s, "s", note=_each(rounds, "training"))
        add(label, "Orchard training", training.seconds, "s")
        add(label, "training ratio", training.seconds / bare_s, "×", 1.10)
        cpu = (training.cpu_s + training.server_cpu_s) / _mean(rounds, "training", "cpu_s")
        add(label, "training ratio, CPU time with servers", cpu, "×")
        if whole is None:
            return
        both = bare_s + _mean(rounds, "scoring", "seconds")
        add(label, "bare load-fit-predict", both, "s", note=_each(rounds, "training", "scoring"))
        add(label, "Orchard file to SQL", whole, "s")
        add(label, "file-to-SQL ratio", whole / both, "×", 1.4)

    def one_percent(self, first: Step) -> None:
        """A second history file that touches one partition in a hundred, through the whole pipeline; rows of the same
        partitions wait to be scored with the new release."""
        self.say("one-percent: the whole pipeline again")
        course = Course(self.running, FULL)
        since = max(run.run_id for run in course.runs())
        scoring, history = (
            self.file("update-scoring", data.write_update_scoring),
            self.file("update", data.write_update),
        )
        course.ingest("scoring", Purpose.SCORING, scoring)
        before = len(course.steps)
        upload = course.admit("update: admission", Purpose.HISTORY, history)
        course.pipeline(upload)
        seconds = sum(step.seconds for step in course.steps[before:])
        for run in course.runs(since):
            recorded = (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0
            course.steps.append(Step(f"run of {run.stage}", 0.0, recorded_s=recorded))
            if run.stage == "training":
                self.results.add("one-percent", "partitions trained again", float(str(run.receipt["trained"])), "")
        course.ask_prefect()
        self.results.steps["one-percent"] = course.steps
        self.results.add("one-percent", "pipeline", seconds, "s")
        self.results.add("one-percent", "share of the first training", 100 * seconds / first.seconds, "%", 5.0)

    def large(self) -> None:
        """One round of each at the size of the published architecture; absolute limits shrink with the size."""
        share = self.size.partitions * self.size.rows / (LARGE.partitions * LARGE.rows)
        rounds = [self.bare(ONE, score=True)]
        course, add = Course(self.running, ONE), self.results.add
        history, scoring = self.file("history", data.write_history), self.file("scoring", data.write_scoring)
        with PeakMemory(server_pids(self.running.settings.home)) as peak:
            self.say("large: ingestion")
            upload = course.ingest("history", Purpose.HISTORY, history)
            ingestion = sum(step.seconds for step in course.steps)
            self.say("large: training")
            training = course.train(upload.dataset_version).seconds
            self.say("large: promotion")
            course.promote()
            self.say("large: ingestion of the scoring file")
            upload = course.ingest("scoring", Purpose.SCORING, scoring)
            self.say("large: scoring")
            predicted = course.score(upload).seconds
        course.ask_prefect()
        self.results.steps["large"] = course.steps
        bare_s = _mean(rounds, "training", "seconds")
        add("large", "ingestion of the history", ingestion, "s")
        add("large", "bare training", bare_s, "s")
        add("large", "training", training, "s", 900 * share)
        add("large", "training ratio", training / bare_s, "×", 1.2)
        add("large", "bare scoring", _mean(rounds, "scoring", "seconds"), "s")
        add("large", "scoring", predicted, "s", 300 * share)
        add("large", "peak memory (RSS)", peak.rss_bytes / 2**30, "GiB", 4.0)
        add("large", "peak memory (PSS)", peak.pss_bytes / 2**30, "GiB")

    def naive(self, partitions: int) -> None:
        """The naive map, against the bare loop's seconds per model where that was run."""
        self.say(f"naive-map: {partitions} models")
        found = self.elsewhere(naive_map.run, self.size, partitions, self.folder / "naive", self.workers)
        self.results.add("naive-map", "log_model per partition", found["seconds_per_model"], "s/model")
        if rounds := self.results.bare.get(ONE):
            per_model = _mean(rounds, "training", "seconds") / self.size.partitions
            self.results.add("naive-map", "bare loop", per_model, "s/model")
            self.results.add("naive-map", "naive over bare", found["seconds_per_model"] / per_model, "×")


def _each(rounds: list[dict[str, dict[str, float]]], *what: str) -> str:
    """Seconds of each round, before and after Orchard's."""
    return " · ".join(f"{sum(figures[name]['seconds'] for name in what):.1f}" for figures in rounds)


def _mean(rounds: list[dict[str, dict[str, float]]], what: str, key: str) -> float:
    return sum(figures[what][key] for figures in rounds) / len(rounds)
