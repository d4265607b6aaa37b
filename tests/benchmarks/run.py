"""`make bench`: Orchard against a bare loop, side by side. `make bench ARGS="--help"` lists the options."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console

BENCHMARKS = ("training", "e2e", "one-percent", "naive-map", "large")
FOLDER = Path(".orchard/bench")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--partitions", type=int, help="1,000 by default, 10,000 with --large")
    parser.add_argument("--rows", type=int, default=4_000, help="of each partition")
    parser.add_argument("--workers", type=int, default=2, help="threads, of Orchard and of the bare loop")
    parser.add_argument("--only", default=",".join(BENCHMARKS[:-1]), help=f"some of: {','.join(BENCHMARKS)}")
    parser.add_argument("--large", action="store_true", help="the same as --only large: 10,000 partitions, once")
    parser.add_argument("--naive-partitions", type=int, default=12, help="models of the naive map")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--home", type=Path, help="where Orchard runs and data is written; kept. By default a fresh folder"
    )
    parser.add_argument("--json", type=Path, help=f"the results; by default below {FOLDER}")
    options = parser.parse_args(given)
    options.only = {"large"} if options.large else set(options.only.split(","))
    if unknown := options.only - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; expected some of {', '.join(BENCHMARKS)}")
    if "large" in options.only and len(options.only) > 1:
        parser.error("large runs alone: it has a size of its own")
    options.partitions = options.partitions or (10_000 if "large" in options.only else 1_000)
    if options.home is not None and options.home.exists() and any(options.home.iterdir()):
        parser.error(f"{options.home} is not empty: what was trained there before would not be trained again")
    return options


def main(given: list[str] | None = None) -> None:
    options = arguments(given)
    console = Console()
    if not console.is_terminal:
        console.width = 130  # a log has no width of its own
    FOLDER.mkdir(parents=True, exist_ok=True)
    home = options.home or Path(tempfile.mkdtemp(prefix="home-", dir=FOLDER))
    home = home.resolve()
    try:
        result = _run(options, home, console)
    finally:
        if options.home is None:
            shutil.rmtree(home, ignore_errors=True)
    path = options.json or FOLDER / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(result, indent=1))
    console.print(f"[dim]{path}[/]")


def _run(options: argparse.Namespace, home: Path, console: Console) -> dict[str, object]:
    from tests.benchmarks import report
    from tests.benchmarks.cases import Bench
    from tests.benchmarks.data import FULL, ONE, Size
    from tests.benchmarks.stages import platform

    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:7.1f} s  {text}[/]", highlight=False)

    size = Size(options.partitions, options.rows, options.seed)
    files = home / "data"
    files.mkdir(parents=True, exist_ok=True)
    say("starting PostgreSQL and the Prefect server")
    with platform(home, options.workers) as running:
        bench = Bench(running, size, options.workers, files, say)
        if "large" in options.only:
            bench.warm_up()
            bench.large()
        elif options.only != {"naive-map"}:
            bench.warm_up()
            if options.only & {"training", "e2e"}:
                bench.journey(ONE, options.only)
            bench.journey(FULL, options.only)
        if "naive-map" in options.only:
            bench.naive(options.naive_partitions)
    report.show(console, bench.results)
    return report.as_dict(bench.results, size, options.workers)


if __name__ == "__main__":
    main()
