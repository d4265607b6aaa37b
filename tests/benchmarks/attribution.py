"""Does metering account for all CPU? What tenants and overhead add up to, beside what the operating system counted.

`python -m tests.benchmarks.attribution`. Runs the demo in a home of its own as the subreaper of all that it starts, so
that the system counts every process of it, servers and their children too. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, text

from deployments.platform import running_platform
from infra.database.connect import transact
from infra.settings import load_settings

PR_SET_CHILD_SUBREAPER = 36
LIMIT = 0.03


def counted(command: list[str], home: Path) -> float:
    """CPU seconds of the command and of everything that it started, all of which has ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot become a subreaper")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=os.environ | {"ORCHARD_HOME": str(home)}, check=True)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def booked(connection: Connection) -> tuple[list[tuple[str, float, float]], list[tuple[str, float]]]:
    """Per tenant what its processes used and what units of it explain; per part of the platform what it used."""
    tenants = text(
        """
        SELECT tenant, sum(p.cpu_s), sum(u.cpu_s) FROM processes AS p
        LEFT JOIN (SELECT tenant, process, sum(cpu_s) AS cpu_s FROM usage GROUP BY 1, 2) AS u USING (tenant, process)
        GROUP BY tenant ORDER BY 2 DESC
        """
    )
    parts = text("SELECT part, sum(cpu_s) FROM overhead GROUP BY part ORDER BY 2 DESC")
    return [tuple(row) for row in connection.execute(tenants)], [tuple(row) for row in connection.execute(parts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--carriers", help="airlines of the demo; all without it")
    carriers = parser.parse_args().carriers
    with tempfile.TemporaryDirectory(prefix="orchard-attribution-") as folder:
        home = Path(folder) / "home"
        command = [str(Path(sys.executable).with_name("orchard")), "demo"]
        total = counted([*command, "--carriers", carriers] if carriers else command, home)
        with running_platform(load_settings(home=home)) as platform:
            tenants, parts = transact(platform.cluster.operator_url, booked)
    table = Table("whose", "CPU seconds", "share", "of it in units")
    for tenant, cpu_s, units in tenants:
        table.add_row(tenant, f"{cpu_s:.2f}", f"{cpu_s / total:.1%}", f"{units / cpu_s:.1%}")
    for part, cpu_s in parts:
        table.add_row(f"overhead: {part}", f"{cpu_s:.2f}", f"{cpu_s / total:.1%}", "")
    found = sum(cpu_s for _, cpu_s, _ in tenants) + sum(cpu_s for _, cpu_s in parts)
    table.add_section()
    table.add_row("accounted for", f"{found:.2f}", f"{found / total:.1%}", "")
    table.add_row("counted by the system", f"{total:.2f}", "100.0%", "")
    Console().print(table)
    missing = abs(1 - found / total)
    print(f"difference {missing:.2%} (goal: at most {LIMIT:.0%})")


if __name__ == "__main__":
    main()
