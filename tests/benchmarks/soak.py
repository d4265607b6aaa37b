"""Online scoring for half an hour: releases switch every minute, PostgreSQL dies once; nothing grows, no request fails.

`python -m tests.benchmarks.soak` (`--minutes 2` for a short one). It fails where a request did, where neither release
answered or nobody while the database was dead, and where memory or open files grew.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from deployments.platform import running_platform
from infra import postgres
from infra.database.cluster import started_cluster
from infra.database.keys import Keys
from infra.registry import initialise_registry
from infra.settings import load_settings
from infra.space import TenantSpace
from tasks.domain.access import Role
from tasks.domain.tenant import Tier
from tests.benchmarks.online import PORT, TIERS, api
from tests.serving.deployed import deploy, onboarded

CLIENTS = 4
DEAD_S = 30

GROWTH = 1.03
"""So many times its memory the process may take at the end, compared with what it took after a third of the time."""

FILES = 8
"""So many more files may be open at the end than in the beginning: connections that are kept."""


@dataclass
class Seen:
    """What clients saw, and what the process took each minute."""

    codes: Counter[int] = field(default_factory=Counter)
    releases: Counter[int] = field(default_factory=Counter)
    stale: int = 0
    memory_mb: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


def ask(key: str, seen: Seen, stop: threading.Event) -> None:
    """Asks for one row after another until it is told to stop."""
    rows = [{"store": n % 6, "day": "2013-11-01T00:00:00Z", "price": 9.5, "colour": "red"} for n in range(60)]
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=30, trust_env=False) as client:
        number = 0
        while not stop.is_set():
            number += 1
            headers = {"Authorization": f"Bearer {key}"}
            answer = client.post("/v1/demand/predict", json={"rows": [rows[number % 60]]}, headers=headers)
            seen.codes[answer.status_code] += 1
            if answer.status_code == 200:
                content = answer.json()
                seen.releases[content["release"]] += 1
                seen.stale += "stale_s" in content
            time.sleep(0.01)


def run(minutes: float, console: Console, every_s: float = 60) -> Seen:
    """Runs the soak; what was seen."""
    with tempfile.TemporaryDirectory(prefix="orchard-soak-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "tiers.yaml").write_text(TIERS)
        for variable in [each for each in os.environ if each.startswith("ORCHARD_")]:
            del os.environ[variable]
        os.environ.update(ORCHARD_HOME=str(folder / "home"), ORCHARD_TIERS_FILE=str(folder / "tiers.yaml"))
        settings = load_settings()
        platform = stack.enter_context(running_platform(settings))
        for uri in platform.registry_uris():
            initialise_registry(uri)
        space: TenantSpace = onboarded(settings, platform.cluster, "soaked", Tier.PREMIUM)
        versions = [deploy(space, folder, run) for run in (1, 2)]
        key = Keys(platform.cluster).create("soaked", "soak", Role.READER)[1]
        seen, stop = Seen(), threading.Event()
        process = stack.enter_context(api(platform))
        with ThreadPoolExecutor(CLIENTS) as pool, ExitStack() as ending:
            ending.callback(stop.set)  # whatever happens, or the pool would wait for its clients for ever
            clients = [pool.submit(ask, key, seen, stop) for _ in range(CLIENTS)]
            ends, number = time.monotonic() + 60 * minutes, 0
            killed = False
            while time.monotonic() < ends:
                time.sleep(every_s)
                number += 1
                if not killed and time.monotonic() > ends - 30 * minutes:
                    killed = True
                    _kill_postgres(settings.home, console)
                    started_cluster(settings)
                version = versions[number % 2]
                space.records.set_champion("demand", version)
                seen.memory_mb.append(process.memory_info().rss / 1e6)
                seen.files.append(process.num_fds())
                console.print(
                    f"{number * every_s / 60:5.1f} min  release {version}  {seen.memory_mb[-1]:7.1f} MB  "
                    f"{seen.files[-1]} files  answers {dict(seen.codes)}",
                    highlight=False,
                )
            stop.set()
            for client in clients:
                client.result()
    return seen


def _kill_postgres(home: Path, console: Console) -> None:
    """`kill -9` of the database and all its processes; nobody starts it again for a while."""
    address = postgres.address(home)
    assert address is not None
    server = psutil.Process(address.pid)
    children = server.children(recursive=True)
    server.kill()  # first, or it would start anew what it loses
    for victim in children:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    console.print(f"PostgreSQL is dead for {DEAD_S} s")
    time.sleep(DEAD_S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    seen = run(options.minutes, Console(), every_s=min(60.0, options.minutes * 60 / 6))
    failed = sum(count for code, count in seen.codes.items() if code != 200)
    settled = seen.memory_mb[len(seen.memory_mb) // 3 :]
    print(
        f"{sum(seen.codes.values()):,} requests, {failed} failed, {seen.stale:,} answered while the database was dead; "
        + ", ".join(f"{count:,} by release {version}" for version, count in sorted(seen.releases.items()))
    )
    print(f"memory {settled[0]:.0f} → {settled[-1]:.0f} MB, open files {seen.files[0]} → {seen.files[-1]}")
    grew = settled[-1] > GROWTH * settled[0] or seen.files[-1] > seen.files[0] + FILES
    raise SystemExit(failed > 0 or grew or not seen.stale or len(seen.releases) < 2)


if __name__ == "__main__":
    main()
