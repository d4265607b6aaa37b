"""Online scoring under load, beside `mlflow models serve` on the same machine in the same run.

`make bench-online` (needs Debian's `wrk`). The models are LightGBM's, 100 trees of 31 leaves; what is measured is the
API of one process with authentication and validation on. MLflow serves in one process, too, three times: a model that
checks its rows (`log_model` with a signature, as MLflow advises), the same one without, and Orchard's whole release.
All predict the same row with the same trees, and must agree. Only answers of 2xx count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import lightgbm
import numpy as np
import psutil
from rich.console import Console

from deployments.onboarding import onboard
from deployments.platform import Platform, running_platform
from infra import servers
from infra.database.keys import Keys
from infra.registry import initialise_registry
from infra.settings import load_settings
from infra.space import TenantSpace
from tasks import bundle
from tasks.domain.access import Role
from tasks.domain.tenant import Tenant, Tier
from tests.benchmarks import report
from tests.benchmarks.cases import Results
from tests.benchmarks.data import FEATURES, ONE, Size, unit_table, use_case
from tests.benchmarks.load import Load, wrk
from tests.benchmarks.mlflow_serving import mlflow_models, mlflow_serves, split
from tests.serving.deployed import record_release

TIERS = """
free: {runs: 1, workers: 1, max_upload_bytes: 1000000, requests_per_s: 1000000, memory_share: 0.3}
standard: {runs: 1, workers: 1, max_upload_bytes: 1000000, requests_per_s: 1000000, memory_share: 0.1}
premium: {runs: 1, workers: 1, max_upload_bytes: 1000000, requests_per_s: 1000000, memory_share: 0.6}
"""

BOOSTERS = 32
"""So many different models are trained; the partitions take turns with their bytes."""

CACHED = 500
ROUNDS = 3
LEAST = 8.0
"""So many times the throughput of `mlflow models serve` is the aim, where both check their rows."""

PORT, MLFLOW_PORT = 8790, 8791


def row(partition: str) -> str:
    """A row of a partition as JSON; `partition` may be a placeholder."""
    values = ", ".join(f'"{name}": 0.5' for name in FEATURES)
    return f'{{"unit": {partition}, "step": 1, {values}}}'


def boosters() -> list[lightgbm.Booster]:
    """Models as training makes them."""
    size = Size(BOOSTERS, 4_000)
    made = []
    for unit in range(BOOSTERS):
        table = unit_table(size, unit, 0, size.rows)
        x = np.column_stack([table[name].to_numpy() for name in FEATURES])
        data = lightgbm.Dataset(x, table["y"].to_numpy())
        made.append(lightgbm.train({"verbosity": -1, "num_threads": 2, "objective": "regression"}, data))
    return made


def write_bundle(folder: Path, models: list[bytes], partitions: int) -> Path:
    """A bundle of so many partitions."""
    folder.mkdir(parents=True)
    parts = []

    def entry(name: str, model: bytes | None) -> dict[str, Any]:
        estimator = "lightgbm" if model is not None else "naive"
        return {
            "partition": name, "estimator": estimator, "spec": json.dumps({"categories": {}} if model else {}),
            "model": model, "naive": [0.0], "rows": 4_000, "metric": 1.0, "naive_metric": 2.0, "data_hash": name,
            "source_run": 1,
        }  # fmt: skip

    for first in range(0, partitions, 50):
        numbers = range(first, min(partitions, first + 50))
        parts.append(folder / f"batch-{first:05}.parquet")
        bundle.write_part(parts[-1], [entry(f"unit={n}", models[n % len(models)]) for n in numbers])
    parts.append(folder / "tenant-wide.parquet")
    bundle.write_part(parts[-1], [entry("*", None)])
    bundle.assemble(folder / "bundle", parts, use_case=use_case(ONE), tenant="bench")
    return folder / "bundle"


@contextmanager
def api(platform: Platform) -> Iterator[psutil.Process]:
    """The API in one process of its own."""
    program = servers.Program(
        "bench-api",
        (sys.executable, "-m", "deployments.api"),
        url=f"http://127.0.0.1:{PORT}",
        ready=f"http://127.0.0.1:{PORT}/readyz",
        environment={"ORCHARD_API_PORT": str(PORT)},
    )
    server = servers.start(platform.settings.home, program)
    try:
        yield psutil.Process(server.pid)
    finally:
        servers.stop(platform.settings.home, "bench-api")


@dataclass(frozen=True)
class Server:
    """One that is compared: where it answers, what it is asked, and its process."""

    name: str
    url: str
    path: str
    body: str
    process: psutil.Process
    key: str = ""

    def answer(self) -> float:
        """What it predicts for partition 0."""
        body = self.body % 0 if "%d" in self.body else self.body
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        said = httpx.post(self.url + self.path, content=body, headers=headers, trust_env=False, timeout=60).json()
        found = said["rows"][0]["prediction"] if "rows" in said else said["predictions"][0]
        return float(found["prediction"] if isinstance(found, dict) else found)


class Bench:
    """The measurements."""

    def __init__(self, platform: Platform, partitions: int, seconds: int, folder: Path, console: Console) -> None:
        self.platform, self.partitions, self.seconds, self.folder = platform, partitions, seconds, folder
        self.console, self.results = console, Results()

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{text}[/]", highlight=False)

    def tenant(self, name: str, tier: Tier, made: Path) -> str:
        """A tenant with a release of the bundle; its key."""
        onboard(self.platform, Tenant(id=name, name=name, tier=tier, use_cases=(use_case(ONE),)))
        space: TenantSpace = self.platform.open_space(name)
        record_release(space, ONE, made, 1)
        return Keys(self.platform.cluster).create(name, "bench", Role.READER)[1]

    def run(self) -> None:
        began, stolen_s = time.monotonic(), _stolen_s()
        self.say(f"training {BOOSTERS} models, writing {self.partitions:,} partitions")
        made = boosters()
        texts = [booster.model_to_string().encode() for booster in made]
        folder = write_bundle(self.folder / "made", texts, self.partitions)
        steady, sweeping = self.tenant("steady", Tier.PREMIUM, folder), self.tenant("sweeping", Tier.PREMIUM, folder)
        add, url, path = self.results.add, f"http://127.0.0.1:{PORT}", f"/v1/{ONE}/predict"
        one, hundred = f'{{"rows": [{row("%d")}]}}', f'{{"rows": [{", ".join([row("7")] * 100)}]}}'
        with api(self.platform) as process:
            ours = Server("Orchard", url, path, one, process, steady)
            warm = self.compared(ours, mlflow_models(made[0], self.folder))
            self.say("at half of that")
            loads = [self.at(warm.per_s / 2, url, path, one, key=steady, connections=16) for _ in range(ROUNDS)]
            half = sorted(loads, key=lambda each: each.p99_ms)[ROUNDS // 2]
            add("warm, half of saturation", "16 connections", half.per_s, "requests/s")
            add("warm, half of saturation", "p50", half.p50_ms, "ms")
            add("warm, half of saturation", "p99", half.p99_ms, "ms", 10.0)
            self.say("100 rows a request")
            many = self.load(url, path, hundred, key=steady)
            add("100 rows a request", "8 connections", many.per_s, "requests/s")
            add("100 rows a request", "p99", many.p99_ms, "ms")
            self.say("cold partitions")
            cold = self.load(url, path, one, key=steady, connections=1, partitions=self.partitions, first=1)
            add("cold partitions", "1 connection", cold.per_s, "requests/s")
            add("cold partitions", "p99", cold.p99_ms, "ms", 50.0)
            self.say(f"{self.partitions:,} partitions through a cache of {CACHED}")
            before = process.memory_info().rss
            cycled = self.load(url, path, one, key=steady, connections=4, partitions=self.partitions, seconds=30)
            add("all partitions, again and again", "4 connections", cycled.per_s, "requests/s")
            add("all partitions, again and again", "memory grew", (process.memory_info().rss - before) / 1e6, "MB")
            self.steadily(lambda: self.at(200, url, path, one, key=steady, connections=2), url, path, one, sweeping)
        add("all", "failed requests", self.failed, "", 0.0)
        add("machine", "taken by its host", 100 * (_stolen_s() - stolen_s) / (time.monotonic() - began), "% of a core")

    def steadily(self, steady: Callable[[], Load], url: str, path: str, body: str, sweeping: str) -> None:
        """A steady tenant alone, beside a sweeping one, and beside training, in turns; the medians of the rounds."""
        found: dict[str, list[float]] = {"alone": [], "beside a sweeping one": [], "beside training": []}
        for number in range(ROUNDS):
            self.say(f"a steady tenant: alone, beside a sweeping one, beside training, round {number + 1} of {ROUNDS}")
            found["alone"].append(steady().p99_ms)
            with self.beside(url, path, body, sweeping):
                found["beside a sweeping one"].append(steady().p99_ms)
            with self.training():
                found["beside training"].append(steady().p99_ms)
        middle = {name: sorted(each)[ROUNDS // 2] for name, each in found.items()}
        for name, p99_ms in middle.items():
            self.results.add(f"steady tenant {name}", "p99", p99_ms, "ms")
        for name, limit in (("beside a sweeping one", 1.5), ("beside training", 2.0)):
            self.results.add(f"steady tenant {name}", "p99 over alone", middle[name] / middle["alone"], "×", limit)

    failed = 0

    def compared(self, ours: Server, models: tuple[Path, Path]) -> Load:
        """Single rows, warm, against MLflow: all servers are up, and take turns. The median of the rounds, ours."""
        add, space = self.results.add, self.platform.open_space("steady")
        names = ("MLflow, rows checked", "MLflow, rows unchecked", "MLflow, Orchard's release")
        bodies = [split(FEATURES), split(FEATURES), split(("unit", "step", *FEATURES))]
        with ExitStack() as stack:
            release = stack.enter_context(space.registry.production.opened(space.registry.release(ONE, 1).source))
            compared = [ours]
            for number, (name, body, model) in enumerate(zip(names, bodies, (*models, release), strict=True)):
                port, log = MLFLOW_PORT + number, self.folder / f"mlflow-{number}.log"
                process = stack.enter_context(mlflow_serves(model, port, log))
                compared.append(Server(name, f"http://127.0.0.1:{port}", "/invocations", body, process))
            said = {each.name: each.answer() for each in compared}
            assert max(said.values()) - min(said.values()) < 1e-9, said
            for each in compared:
                self.load(each.url, each.path, each.body, key=each.key, seconds=3)
            found: dict[str, list[tuple[Load, float]]] = {each.name: [] for each in compared}
            for number in range(ROUNDS):
                self.say(f"single rows, warm, round {number + 1} of {ROUNDS}")
                for each in compared:
                    before = sum(each.process.cpu_times()[:2])
                    load = self.load(each.url, each.path, each.body, key=each.key)
                    spent_s = sum(each.process.cpu_times()[:2]) - before
                    found[each.name].append((load, 1e6 * spent_s / (load.per_s * self.seconds)))
        middle = {name: sorted(each, key=lambda one: one[0].per_s)[ROUNDS // 2] for name, each in found.items()}
        for name, (load, cpu_us) in middle.items():
            add(name, "warm single rows, 8 connections", load.per_s, "requests/s")
            for label, value in (("p50", load.p50_ms), ("p99", load.p99_ms)):
                add(name, label, value, "ms")
            add(name, "CPU per request", cpu_us, "µs")
        for name in names:
            limit = LEAST if name == names[0] else None
            add(
                "Orchard", f"over {name}", middle["Orchard"][0].per_s / middle[name][0].per_s, "×", limit, at_least=True
            )
            add("Orchard", f"CPU, {name} over it", middle[name][1] / middle["Orchard"][1], "×")
        return middle["Orchard"][0]

    def load(self, url: str, path: str, body: str, **options: Any) -> Load:
        found = wrk(url, path, body, **{"seconds": self.seconds, **options})
        self.failed += found.failed
        return found

    def at(self, per_s: float, url: str, path: str, body: str, connections: int = 8, **options: Any) -> Load:
        """About so many requests a second: each connection pauses before its next one, which then takes about 1 ms."""
        return self.load(url, path, body, connections=connections, pause_ms=1000 * connections / per_s - 1, **options)

    @contextmanager
    def beside(self, url: str, path: str, body: str, key: str) -> Iterator[None]:
        """A sweep over all partitions of another tenant, one request at a time, while the block runs."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            sweep = pool.submit(
                self.load, url, path, body, key=key, connections=1, partitions=self.partitions, first=1,
                seconds=self.seconds + 2, pause_ms=5,
            )  # fmt: skip
            time.sleep(1)
            yield
            sweep.result()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Fits on all cores, as runs do it: in a process that gives way."""
        code = (
            "import os\n"
            "from infra.turns import give_way\n"
            "give_way()\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "import lightgbm, numpy as np\n"
            "x = np.random.default_rng(0).normal(size=(4000, 10)); y = x[:, 0] * x[:, 1]\n"
            "def fit(_): lightgbm.train({'verbosity': -1, 'num_threads': 1}, lightgbm.Dataset(x, y))\n"
            "with ThreadPoolExecutor(os.cpu_count()) as pool: list(pool.map(fit, range(100000)))\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code])
        try:
            time.sleep(4)
            yield
        finally:
            process.kill()
            process.wait()


def _stolen_s() -> float:
    """How long the cores of a virtual machine have waited for its host: a p99 cannot be read without it."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-online", description=__doc__)
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=8, help="of each measurement")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("the load generator is not installed: apt-get install wrk")
    console = Console()
    with tempfile.TemporaryDirectory(prefix="orchard-online-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "tiers.yaml").write_text(TIERS)
        for variable in [each for each in os.environ if each.startswith("ORCHARD_")]:
            del os.environ[variable]
        text_bytes = 290_000
        os.environ.update(
            ORCHARD_HOME=str(folder / "home"),
            ORCHARD_TIERS_FILE=str(folder / "tiers.yaml"),
            ORCHARD_SERVING_MEMORY_MB=str(round(CACHED * 2 * text_bytes / 0.6 / 1e6)),
        )
        platform = stack.enter_context(running_platform(load_settings()))
        for uri in platform.registry_uris():
            initialise_registry(uri)
        bench = Bench(platform, options.partitions, options.seconds, folder, console)
        bench.run()
        report.show(console, bench.results)


if __name__ == "__main__":
    main()
