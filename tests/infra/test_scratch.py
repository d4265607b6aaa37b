"""Scratch folders: whoever is killed leaves nothing for long, and nobody loses what they work on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.scratch import scratch

HOLD = """
import sys, time
from pathlib import Path
from infra.scratch import scratch
with scratch(Path(sys.argv[1]), "held") as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_folder_is_removed_also_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), scratch(tmp_path, "work") as folder:
        (folder / "missing").read_text()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed_and_folders_in_use_stay(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    held = Path(child.stdout.readline().strip())
    with scratch(tmp_path, "mine") as mine, scratch(tmp_path, "other"):
        assert (held / "file").exists()
        assert mine.exists()
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    with scratch(tmp_path, "mine"):
        assert not held.exists()


def test_many_at_once(tmp_path: Path) -> None:
    def work(number: int) -> bool:
        with scratch(tmp_path, "work") as folder:
            (folder / "file").write_text(str(number))
            return (folder / "file").read_text() == str(number)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
    assert list(tmp_path.iterdir()) == []
