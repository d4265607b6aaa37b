"""What isolation costs: the same pipeline with all its layers, and with none of them, turn and turn about.

`python -m tests.benchmarks.isolation`. Without the layers, a space reaches the database as its superuser, to whom no
policy applies, the registries as their owner, and files without a look at where their paths lead.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from deployments.onboarding import onboard
from deployments.platform import Platform
from infra import postgres
from infra.database.cluster import OPERATOR
from infra.database.records import PostgresRecords
from infra.lake.location import Location
from tasks.domain.names import Purpose
from tests.benchmarks import data
from tests.benchmarks.stages import platform
from tests.samples import witness

LIMIT = 1.05


@contextmanager
def without_layers(running: Platform) -> Iterator[None]:
    """Spaces that are opened within the block are not confined by anything but the tenant's name in their queries."""
    settings = running.settings
    address = postgres.address(settings.home)
    assert address is not None
    url = address.url(postgres.ADMIN, settings.service_password(postgres.ADMIN), OPERATOR)

    def records(_: object, tenant: str, __: object) -> PostgresRecords:
        return PostgresRecords(url, tenant)

    def registries(_: object, tenant: str) -> list[str]:
        # Connections of each tenant's own, as with the layers: a run's process has no others.
        return [f"{uri}&application_name={tenant}" for uri in running.registry_uris()]

    with ExitStack() as off:
        off.enter_context(patch("infra.space.records_of", records))
        for check in ("check", "check_table", "check_file"):
            off.enter_context(patch.object(Location, check, lambda *_: None))
        off.enter_context(patch("infra.database.cluster.Cluster.tenant_registry_urls", registries))
        yield


def journey(running: Platform, tenant: str, history: Path, scoring: Path) -> float:
    """Seconds of the pipelines of both files: from the lake to predictions in SQL."""
    from flows.operations import admit
    from flows.pipeline import pipeline
    from flows.runner import in_this_process

    onboard(running, data.tenant().model_copy(update={"id": tenant}))
    seconds = 0.0
    for purpose, path in ((Purpose.HISTORY, history), (Purpose.SCORING, scoring)):
        space = running.open_space(tenant)
        upload, _ = admit(space, data.ONE, purpose, path, witness(running.cluster))
        began = time.perf_counter()
        with in_this_process():
            pipeline(tenant, upload.upload_id)
        seconds += time.perf_counter() - began
    assert len(running.open_space(tenant).records.predictions(data.ONE, limit=1))
    return seconds


def run(size: data.Size, rounds: int, home: Path, say: Any = print) -> float:
    """The ratio of the medians, on over off; the first round of each, which warms up, does not count."""
    history, scoring = home / "history.parquet", home / "scoring.parquet"
    home.mkdir(parents=True, exist_ok=True)
    data.write_history(history, size)
    data.write_scoring(scoring, size)
    found: dict[bool, list[float]] = {True: [], False: []}
    with platform(home / "orchard", 2) as running:
        for number in range(rounds + 1):
            for on in (True, False) if number % 2 else (False, True):
                with ExitStack() as layers:
                    if not on:
                        layers.enter_context(without_layers(running))
                    seconds = journey(running, f"{'on' if on else 'off'}-{number}", history, scoring)
                if number:
                    found[on].append(seconds)
                    say(f"round {number}: {'all layers' if on else 'none'} {seconds:.2f} s")
    ratio = statistics.median(found[True]) / statistics.median(found[False])
    say(f"median with all layers over median without: {ratio:.3f} × (at most {LIMIT} ×)")
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.isolation", description=__doc__)
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchard-isolation-") as folder:
        run(data.Size(options.partitions, options.rows), options.rounds, Path(folder))


if __name__ == "__main__":
    main()
