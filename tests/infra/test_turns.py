"""Who comes first: in processes of their own, which ask the system afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.turns import NICENESS, PRIORITY, SESSION_NICENESS
from tests.rights import may_be_real_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduler")

NOBODY = 65534


def said(code: str) -> Any:
    """What a process prints, as JSON."""
    code = f"import json, os, threading\nfrom pathlib import Path\nfrom infra.turns import come_first, give_way\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_gives_way_among_the_processes_of_its_session_and_with_its_session() -> None:
    niceness, leads = said("give_way()\nprint(json.dumps([os.nice(0), os.getsid(0) == os.getpid()]))")
    assert niceness == os.nice(0) + NICENESS
    assert leads


GROUP = "print(json.dumps(Path('/proc/self/autogroup').read_text().split()))"
"""The name of the session's group, the word "nice", and its niceness; nothing in the session that the system began
with, which has no group of its own."""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no groups by session")
@pytest.mark.parametrize("began", ["", "os.setsid()\n"], ids=["in its parent's session", "in a session of its own"])
def test_its_session_gives_way_and_that_of_its_parent_does_not(began: str) -> None:
    before = Path("/proc/self/autogroup").read_text()
    group = said(f"{began}give_way()\n{GROUP}")
    if not group:
        pytest.skip("no groups by session")
    assert group[-1] == str(SESSION_NICENESS)
    assert group[0] not in before.split()
    assert Path("/proc/self/autogroup").read_text() == before


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no groups by session")
def test_a_session_of_others_does_not_give_way_with_it() -> None:
    before = Path("/proc/self/autogroup").read_text().split()
    code = f"os.setpgid(0, 0)\nbefore = os.getsid(0)\ngive_way()\nassert os.getsid(0) == before\n{GROUP}"
    assert said(code) == before


POLICIES = """
def policies():
    found = []
    thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
    thread.start(); thread.join()
    policy, priority = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority
    return [policy, priority, found[0]]
"""
"""Of this thread, its priority, and the policy of threads that it starts."""

IN_TURN = [os.SCHED_OTHER, 0, os.SCHED_OTHER]


@pytest.mark.skipif(not may_be_real_time(), reason="needs CAP_SYS_NICE")
def test_a_thread_comes_first_and_those_that_it_starts_do_not() -> None:
    found = said(f"{POLICIES}\nprint(json.dumps([come_first(True), policies(), come_first(False), policies()]))")
    assert found == [True, [os.SCHED_RR, PRIORITY, os.SCHED_OTHER], True, IN_TURN]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes nobody")
def test_without_the_right_to_it_nothing_changes() -> None:
    nobody = f"os.setgid({NOBODY}); os.setuid({NOBODY})\nprint(json.dumps([come_first(True), policies()]))"
    assert said(f"{POLICIES}\n{nobody}") == [False, IN_TURN]
