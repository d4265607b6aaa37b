"""The `orchard` command line on a platform that stays up for these tests: a real PostgreSQL, a real Prefect server."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deployments.platform import running_platform, stop_platform
from infra.settings import Settings, load_settings
from tests.cli.terminal import Terminal
from tests.ports import own_port


@pytest.fixture(scope="package")
def settings() -> Iterator[Settings]:
    """Settings of a home of these tests' own, in the environment too, where commands read them."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="orchard-cli-") as folder, ExitStack() as stack:
        stack.callback(_restore, before)
        for name in [name for name in os.environ if name.startswith(("ORCHARD_", "PREFECT_"))]:
            del os.environ[name]
        os.environ.update(
            ORCHARD_HOME=f"{folder}/home",
            ORCHARD_PREFECT_PORT=str(own_port(4600)),
            ORCHARD_WORKERS="2",
            ORCHARD_VERIFY_ONBOARDING="false",  # tests of their own do
            COLUMNS="200",
            NO_COLOR="1",
        )
        yield load_settings()


@pytest.fixture(scope="package")
def platform(settings: Settings) -> Iterator[None]:
    """What commands would start and stop each time, kept running."""
    from infra.registry import initialise_registry

    try:
        with running_platform(settings, prefect=True, keep=True) as running:
            for uri in running.registry_uris():
                initialise_registry(uri)
        if "prefect" in sys.modules:  # another test may have imported it, and it reads its address when it is imported
            from prefect.context import refresh_global_settings_context

            refresh_global_settings_context()
        yield
    finally:
        stop_platform(settings)


@pytest.fixture(scope="package")
def terminal(platform: None) -> Iterator[Terminal]:
    """Types commands, and reads what they print."""
    with Terminal() as terminal:
        yield terminal


@pytest.fixture
def orchard(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return terminal


def _restore(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
