"""Load on a server, and what came of it: Debian's `wrk`."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass

from tests.rights import may_be_real_time

SCRIPT = """
local number = {first}
local step = {step}
request = function()
  number = (number + step) % {partitions}
  return wrk.format("POST", "{path}", {{
    ["Content-Type"] = "application/json", ["Authorization"] = "Bearer {key}"
  }}, string.format([==[{body}]==], number))
end
{delay}
"""


@dataclass(frozen=True)
class Load:
    """What `wrk` saw: requests per second, latencies in milliseconds, and how many requests were not answered."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


AHEAD = ("chrt", "--rr", "2") if may_be_real_time() else ()
"""The load generator comes first where it may: how long it waits for a core itself is not the servers' doing."""


def wrk(
    url: str, path: str, body: str, *, key: str = "", connections: int = 8, seconds: int = 8, partitions: int = 1,
    first: int = 0, step: int = 1, pause_ms: float = 0,
) -> Load:  # fmt: skip
    """Sends requests, each connection one at a time. `body` has `%d` where the partition goes."""
    delay = f"delay = function() return {pause_ms:.0f} end" if pause_ms else ""
    body = body if "%d" in body else body + "%.0s"
    script = SCRIPT.format(first=first, step=step, partitions=partitions, path=path, key=key, body=body, delay=delay)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *AHEAD, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s", "-s",
                file.name, url,
            ],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", done)))
    if errors := re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done):
        failed += sum(map(int, errors.groups()))
    found = re.search(r"(\d+) requests in ([0-9.]+)s", done)
    assert found is not None, done
    good = int(found[1]) - sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", done)))
    return Load(good / float(found[2]), _ms(done, "50%"), _ms(done, "99%"), failed)


def _ms(text: str, percentile: str) -> float:
    found = re.search(rf"{percentile}\s+([0-9.]+)(us|ms|s)\b", text)
    assert found is not None, text
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]
