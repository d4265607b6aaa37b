"""An `orchard up` of a benchmark's own, and tenants with small use cases on it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deployments.onboarding import onboard
from deployments.platform import Platform, running_platform
from infra import servers
from infra.database.audit import Witness
from infra.database.queue import Queue
from infra.settings import Settings, load_settings
from tasks.domain.tenant import Tenant, Tier
from tasks.domain.use_case import UseCase
from tests.samples import witness

ORCHARD = Path(sys.executable).with_name("orchard")
PARTITIONS = 50
FEATURES = 5


@dataclass(frozen=True)
class Running:
    """A platform that is up."""

    platform: Platform
    settings: Settings

    @property
    def queue(self) -> Queue:
        return Queue(self.platform.cluster)

    @property
    def witness(self) -> Witness:
        """The audit of what is done to it."""
        return witness(self.platform.cluster)

    @property
    def ui_url(self) -> str:
        """Prefect's UI."""
        server = servers.running(self.settings.home, "prefect")
        assert server is not None
        return server.url.removesuffix("/api")

    def onboard(self, tenant: Tenant) -> None:
        onboard(self.platform, tenant)


@contextmanager
def platform_up(tiers: str | None = None, **environment: str) -> Iterator[Running]:
    """Runs `orchard up` in a fresh home, on ports of its own; ends with `orchard down`. `tiers` is a tiers file."""
    with tempfile.TemporaryDirectory(prefix="orchard-up-") as folder:
        before = dict(os.environ)
        for name in [name for name in os.environ if name.startswith(("ORCHARD_", "PREFECT_"))]:
            del os.environ[name]
        os.environ.update(
            ORCHARD_HOME=f"{folder}/home",
            ORCHARD_PREFECT_PORT="4710",
            ORCHARD_MLFLOW_PORT="5710",
            ORCHARD_API_PORT="8710",
            **environment,
        )
        if tiers is not None:
            (Path(folder) / "tiers.yaml").write_text(tiers)
            os.environ["ORCHARD_TIERS_FILE"] = f"{folder}/tiers.yaml"
        try:
            subprocess.run([ORCHARD, "up"], check=True)
            settings = load_settings()
            with running_platform(settings, prefect=True) as platform:
                _tell_prefect()
                yield Running(platform, settings)
        finally:
            subprocess.run([ORCHARD, "down"], check=False)
            os.environ.clear()
            os.environ.update(before)
            _tell_prefect()


def _tell_prefect() -> None:
    """Prefect reads the environment when it is imported; this makes it look again."""
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def small_use_case(name: str = "demand") -> UseCase:
    """A regression over `PARTITIONS` shops with a few features."""
    columns: dict[str, Any] = {"shop": {"type": "integer"}, "step": {"type": "integer"}}
    columns |= {f"x{number}": {"type": "number"} for number in range(FEATURES)}
    return UseCase.model_validate(
        {
            "id": name,
            "kind": "regression",
            "contract": {"columns": {**columns, "y": {"type": "number"}}, "row_key": ["shop", "step"]},
            "partition_by": ["shop"],
            "target": "y",
            "time": "step",
            "features": {"numeric": [f"x{number}" for number in range(FEATURES)]},
        }
    )


def small_tenant(name: str, tier: Tier, use_cases: int = 1) -> Tenant:
    """A tenant with so many of them."""
    cases = tuple(small_use_case(f"demand-{number}" if number else "demand") for number in range(use_cases))
    return Tenant(id=name, name=name, tier=tier, use_cases=cases)


def rows(count: int, first_step: int, target: bool, seed: int = 0) -> bytes:
    """A CSV file of `count` rows, spread evenly over the shops."""
    random = np.random.default_rng([seed, first_step])
    each = count // PARTITIONS
    frame = pd.DataFrame({"shop": np.repeat(np.arange(PARTITIONS), each)})
    frame["step"] = np.tile(np.arange(first_step, first_step + each), PARTITIONS)
    for number in range(FEATURES):
        frame[f"x{number}"] = random.normal(size=len(frame)).round(4)
    if target:
        frame["y"] = (frame["x0"] * (1 + frame["shop"] % 3) + frame["x1"] ** 2 + random.normal(size=len(frame))).round(
            4
        )
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False)
    return buffer.getvalue().encode()


def until(what: Any, timeout_s: float, every_s: float = 0.2) -> Any:
    """Asks again and again until the answer is true; returns it. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(every_s)  # an answer from outside: nothing to wait on
    raise TimeoutError(f"nothing within {timeout_s:.0f} s")
