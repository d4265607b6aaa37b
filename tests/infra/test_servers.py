"""Records of running servers: whose process it is, whatever became of the clock and of process ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra import servers

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEPS) as child:
        yield child
        child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="start times count from the clock's idea of the boot on Linux")
def test_a_clock_that_was_set_hides_no_server(
    tmp_path: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = servers.record(tmp_path, "api", "http://x", process.pid)
    assert servers.running(tmp_path, "api") == recorded
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 3600)  # a test may not set the clock
    assert psutil.Process(process.pid).create_time() != recorded.started
    assert servers.running(tmp_path, "api") == recorded


def test_another_process_of_the_same_id_is_no_server(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    servers.record(tmp_path, "api", "http://x", os.getpid())
    path = tmp_path / "run" / "api.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": process.pid}))
    assert servers.running(tmp_path, "api") is None
    assert not servers.stop(tmp_path, "api")
    assert process.poll() is None


def test_a_record_of_an_earlier_version_counts(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    servers.record(tmp_path, "api", "http://x", process.pid)
    path = tmp_path / "run" / "api.json"
    old = json.loads(path.read_text())
    del old["birth"]
    path.write_text(json.dumps(old))
    assert servers.running(tmp_path, "api") is not None
    assert servers.stop(tmp_path, "api")
    assert not psutil.pid_exists(process.pid)
