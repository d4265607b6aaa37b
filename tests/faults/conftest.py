"""A platform whose servers outlive the runs that are killed, and an undisturbed tenant to compare with."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deployments.onboarding import onboard
from deployments.platform import Platform, running_platform
from infra.settings import load_settings
from infra.space import TenantSpace
from tests.faults.remains import remains
from tests.faults.story import Chapter, tenant, write_chapters
from tests.faults.zygote import BUSY, Child, Zygote
from tests.ports import own_port


class Course(NamedTuple):
    """How a chapter goes when nobody disturbs it."""

    effects: list[str]
    """In order, each once."""
    remains: dict[str, Any]
    seconds: dict[str, float]
    """Of each of its runs, by stage, in order."""


@dataclass
class Stage:
    """What the tests play on: servers, a process that forks runs, and the story's files."""

    platform: Platform
    zygote: Zygote
    chapters: list[Chapter]
    courses: dict[str, Course] = field(default_factory=dict)

    def until(self, name: str) -> list[Chapter]:
        """The chapters up to this one."""
        return self.chapters[: [chapter.name for chapter in self.chapters].index(name) + 1]

    def course(self, name: str) -> Course:
        """The undisturbed course of a chapter, found out once by a tenant of its own."""
        space = self.new_tenant("reference")
        for chapter in self.until(name):
            if chapter.name not in self.courses:
                earlier = {run.run_id for run in space.records.runs()}
                effects = self.complete(space, [chapter])
                seconds = {
                    run.stage.value: (run.finished_at - run.started_at).total_seconds()
                    for run in reversed(space.records.runs())
                    if run.run_id not in earlier and run.finished_at
                }
                self.courses[chapter.name] = Course(list(dict.fromkeys(effects)), remains(space), seconds)
        return self.courses[name]

    def new_tenant(self, tenant_id: str) -> TenantSpace:
        """Another tenant with the story's use case."""
        onboard(self.platform, tenant(tenant_id))
        return self.platform.open_space(tenant_id)

    def start(self, space: TenantSpace, chapters: Sequence[Chapter], **options: Any) -> Child:
        """A run of these chapters, which has not found the use case busy.

        The server takes a moment to notice that a killed run's connection is gone, and with it its lock.
        """
        for _ in range(50):
            child = self.zygote.start(space.tenant.id, chapters, **options)
            if child.wait(0.1) != BUSY:
                return child
            time.sleep(0.1)
        raise AssertionError("the lock of a dead run was never let go")

    def complete(self, space: TenantSpace, chapters: Sequence[Chapter]) -> list[str]:
        """Runs these chapters to their end, undisturbed; returns the effects."""
        child = self.start(space, chapters)
        assert child.wait() == 0, self.zygote.last_words()
        return child.effects()


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """The platform, in a home of its own, and the story as it goes when nothing happens."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="orchard-faults-") as folder:
        settings = load_settings(home=Path(folder) / "home", prefect_port=own_port(4800))
        try:
            with running_platform(settings, prefect=True) as platform:
                scratch = Path(folder) / "tmp"
                scratch.mkdir()
                quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "TMPDIR": str(scratch), "OPENBLAS_NUM_THREADS": "1"}
                environment = os.environ | quiet | {"ORCHARD_HOME": str(settings.home)}
                os.environ.clear()
                os.environ.update(before)  # the rest of the session has servers of its own
                zygote = Zygote(environment, Path(folder))
                try:
                    yield Stage(platform, zygote, write_chapters(Path(folder) / "files"))
                finally:
                    zygote.close()
        finally:
            os.environ.clear()
            os.environ.update(before)
