"""A platform whose servers outlive the runs that are killed, and an undisturbed tenant to compare with."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployments.onboarding import onboard
from deployments.platform import Platform, running_platform
from infra.settings import load_settings
from infra.space import TenantSpace
from tests.faults import story
from tests.faults.remains import remains
from tests.faults.zygote import Zygote

NewTenant = Callable[[], TenantSpace]


@dataclass(frozen=True)
class Stage:
    """What the tests play on: servers, a process that forks runs, the story's files, and its undisturbed course."""

    platform: Platform
    zygote: Zygote
    chapters: tuple[story.Chapter, ...]
    traces: dict[str, list[str]]
    """Effects by chapter, in order, of a run that nobody disturbed."""
    expected: dict[str, dict[str, Any]]
    """What remains after each chapter."""
    scratch: Path

    def until(self, name: str) -> tuple[story.Chapter, ...]:
        """The chapters up to this one."""
        return self.chapters[: [chapter.name for chapter in self.chapters].index(name) + 1]


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """The platform, in a home of its own, and the story as it goes when nothing happens."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="orchard-faults-") as folder:
        settings = load_settings(home=Path(folder) / "home", prefect_port=4800)
        try:
            with running_platform(settings) as platform, ThreadPoolExecutor(1) as beside:
                registries = beside.submit(_initialise, platform)
                with running_platform(settings, prefect=True):
                    registries.result()
                    scratch = Path(folder) / "tmp"
                    scratch.mkdir()
                    quiet = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "TMPDIR": str(scratch), "OPENBLAS_NUM_THREADS": "1"}
                    environment = os.environ | quiet | {"ORCHARD_HOME": str(settings.home)}
                    os.environ.clear()
                    os.environ.update(before)  # the rest of the session has servers of its own
                    zygote = Zygote(environment, Path(folder))
                    try:
                        yield _undisturbed(platform, zygote, story.write_chapters(Path(folder) / "files"), scratch)
                    finally:
                        zygote.close()
        finally:
            os.environ.clear()
            os.environ.update(before)


def _initialise(platform: Platform) -> None:
    from infra.registry import initialise_registry

    for uri in platform.registry_uris():
        initialise_registry(uri)


def _undisturbed(platform: Platform, zygote: Zygote, chapters: list[story.Chapter], scratch: Path) -> Stage:
    onboard(platform, story.tenant("reference"))
    traces, expected = {}, {}
    for chapter in chapters:
        child = zygote.start("reference", [chapter])
        assert child.wait() == 0, zygote.last_words()
        traces[chapter.name] = list(dict.fromkeys(child.effects()))
        expected[chapter.name] = remains(platform.open_space("reference"))
    return Stage(platform, zygote, tuple(chapters), traces, expected, scratch)


@pytest.fixture(scope="session")
def new_tenant(stage: Stage) -> NewTenant:
    """Onboards another tenant with the same use case."""
    numbers = itertools.count(1)

    def make() -> TenantSpace:
        tenant = story.tenant(f"victim-{next(numbers)}")
        onboard(stage.platform, tenant)
        return stage.platform.open_space(tenant.id)

    return make
