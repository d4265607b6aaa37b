"""Reads files that are meant to break whoever reads them: `python -m flows.attacks.hostile`, never in a worker itself.

Each line of standard input is a file's path; each line of standard output says what came of it. A file is read in a
process of its own, with limits, because parsers in C may die of it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from infra.attacks.canary import CANARY_USE_CASE
from tasks.domain.errors import Permanent
from tasks.domain.names import Purpose
from tasks.ingestion.readers import read_chunks
from tasks.ingestion.streams import UploadedFile

MEMORY_BYTES = 2 << 30
"""Beyond what the process has when it begins."""

CPU_S = 60


def read(path: Path) -> dict[str, object]:
    """How many rows a file has, or how it is refused."""
    started, rows, broken = time.monotonic(), 0, 0
    answer: dict[str, object] = {}
    try:
        for chunk in read_chunks(UploadedFile(path, path.name), CANARY_USE_CASE, Purpose.HISTORY):
            rows += len(chunk.frame)
            broken += len(chunk.broken)
    except Permanent as error:
        answer["refused"] = f"{type(error).__name__}: {error}"
    except Exception as error:  # what is not refused in our own words is a defect
        answer["failed"] = f"{type(error).__name__}: {error}"[:500]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {**answer, "rows": rows, "broken": broken, "peak_mb": peak, "seconds": round(time.monotonic() - started, 1)}


def apart(path: Path) -> dict[str, object]:
    """The same in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        os.write(writer, json.dumps(read(path)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found: dict[str, object] = json.loads(said) if said else {"died": f"with status {status}"}
    return found


def main() -> None:
    """Reads until there are no more files."""
    for line in sys.stdin:
        print(json.dumps(apart(Path(line.strip()))), flush=True)


if __name__ == "__main__":
    main()
