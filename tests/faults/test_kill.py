"""`kill -9`: whenever it strikes, a re-run ends where an undisturbed run ends, and does no finished batch again."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from flows.metering import EVERY_S
from infra.database.connect import transact
from infra.space import TenantSpace
from tasks.domain.names import Stage as Word
from tasks.domain.run import RunStatus
from tests.faults.conftest import Stage
from tests.faults.remains import Attempts, differences, garbage, published_files_exist, remains
from tests.faults.story import USE_CASE, Chapter
from tests.faults.zygote import Child

MOMENTS = {
    "history": [
        "ingestion: commit rows",
        "ingestion: upload is ingested",
        "training: put runs/sales/training/*/models/part-0004.parquet",
        "training: mlflow create_model_version",
        "promotion: model's folder is in place",
        "promotion: mlflow set_registered_model_alias",
        "promotion: finish_run",
    ],
    "scoring": ["scoring: write predictions 2", "scoring: commit predictions"],
    "actuals": ["monitoring: open run"],
    "more-history": ["promotion: set_champion"],
}
"""Between two effects that must go together, once in every stage."""

KILLS, ROUNDS = 20, 4

START_S = 1.0
"""CPU that a run uses to come to its first reading."""


def test_killed_in_every_stage(stage: Stage) -> None:
    """One kill at the most delicate moments of every stage; `test_killed_after_every_effect` tries all of them."""
    space = stage.new_tenant("killed")
    for name, moments in MOMENTS.items():
        kill_at(stage, space, stage.until(name)[-1], moments)
    assert_as_if_nothing_had_happened(stage, space, "more-history")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["history", "scoring", "actuals", "more-history"])
def test_killed_after_every_effect(stage: Stage, name: str) -> None:
    """At every boundary between two durable effects, found by watching an undisturbed run.

    Each attempt resumes at one boundary and is killed at the next.
    """
    space = stage.new_tenant(f"every-{name}")
    *before, chapter = stage.until(name)
    effects = stage.course(name).effects
    if before:
        stage.complete(space, before)
    kill_at(stage, space, chapter, effects)
    print(f"{name}: killed after each of {len(effects)} effects")
    assert_as_if_nothing_had_happened(stage, space, name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments(stage: Stage) -> None:
    """Tenant after tenant goes through the story, killed at random in every stage, with batches side by side."""
    seed = int(os.environ.get("ORCHARD_TEST_SEED") or random.randrange(10**6))
    print(f"ORCHARD_TEST_SEED={seed}")
    moment = random.Random(seed)
    struck: Counter[str] = Counter()
    for number in range(1, ROUNDS + 1):
        space = stage.new_tenant(f"random-{number}")
        kills = sum((kill_in(stage, space, chapter, moment) for chapter in stage.chapters), Counter())
        print(f"round {number}: {dict(kills)}")
        struck += kills
        assert_as_if_nothing_had_happened(stage, space, stage.chapters[-1].name)
        if struck.total() >= KILLS and all(struck[word] for word in Word):
            break
    assert struck.total() >= KILLS, struck
    assert all(struck[word] for word in Word), struck


def kill_at(stage: Stage, space: TenantSpace, chapter: Chapter, effects: Sequence[str]) -> None:
    """Runs a chapter again and again, killed after each of these effects in turn, and then to its end."""
    attempts = Attempts(space)
    for effect in effects:
        child = stage.start(space, [chapter], stop_at=effect)
        assert child.wait() == -9, f"{effect!r} was never reached\n{stage.zygote.last_words()}"
        attempts.look()
    stage.complete(space, [chapter])
    assert attempts.look() <= len(effects)


def kill_in(stage: Stage, space: TenantSpace, chapter: Chapter, moment: random.Random) -> Counter[str]:
    """Kills a chapter once or twice in each of its stages, then lets it end; counts the stages that were struck."""
    attempts, struck, lost = Attempts(space), Counter[str](), Lost(space)
    seconds = stage.course(chapter.name).seconds
    for word in seconds:
        for _ in range(moment.choice([1, 2])):
            earlier = {run.run_id: run.attempts for run in space.records.runs(USE_CASE, Word(word))}
            child = stage.start(space, [chapter], workers=2)
            while child.wait(0) is None and not any(
                run.status is RunStatus.RUNNING and run.attempts > earlier.get(run.run_id, 0)
                for run in space.records.runs(USE_CASE, Word(word))
            ):
                time.sleep(0.01)  # the database is asked, there is nothing to wait for
            time.sleep(moment.uniform(0, seconds[word]))
            if child.kill():
                running = [run.stage.value for run in space.records.runs(USE_CASE) if run.status is RunStatus.RUNNING]
                struck[running[0] if running else "between stages"] += 1
                lost.killed(child)
            attempts.look()
    stage.complete(space, [chapter])
    lost.assert_known()
    assert attempts.look() <= 2 * struck.total()  # a kill strikes as many batches as there are threads
    return struck


@dataclass
class Lost:
    """What killed runs of a tenant had used, as the system counted it, beside what was read of them."""

    space: TenantSpace
    kills: int = 0
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self.read_before_s = self._read_s()

    def killed(self, child: Child) -> None:
        self.kills += 1
        self.cpu_s += child.cpu_s

    def assert_known(self) -> None:
        """All but what two threads can use between two readings, and what a process uses before its first."""
        missing = self.cpu_s - (self._read_s() - self.read_before_s)
        print(f"{self.kills} kills: {self.cpu_s:.1f} s used, {missing:.1f} s of it unknown")
        assert -0.1 <= missing <= self.kills * (2 * EVERY_S + START_S)

    def _read_s(self) -> float:
        query = text("SELECT coalesce(sum(cpu_s), 0) FROM processes WHERE tenant = :tenant AND ended IS NULL")
        own = {"tenant": self.space.tenant.id}
        return float(transact(self.space.records.url, lambda connection: connection.scalar(query, own)))


def assert_as_if_nothing_had_happened(stage: Stage, space: TenantSpace, name: str) -> None:
    """What remains after this chapter is what an undisturbed tenant has, nothing more and nothing less."""
    assert differences(remains(space), stage.course(name).remains) == []
    published_files_exist(space)
    assert garbage(space) == []
