"""What else may happen to a run: another run at the same time, a Prefect server without memory, a database restart."""

from __future__ import annotations

import signal
import time

import psutil
import psycopg
import pytest

from infra import postgres
from infra.database.cluster import started_cluster
from tests.faults.conftest import Stage
from tests.faults.remains import differences, remains
from tests.faults.zygote import BUSY, Child


def test_second_run_finds_the_use_case_busy(stage: Stage) -> None:
    """Two runs of one use case at once: the second is turned away, and the first does not notice."""
    space, history = stage.new_tenant("twice"), stage.until("history")
    first = stage.start(space, history, stop_at="training: finish_training_batch 2", number=signal.SIGSTOP)
    wait_until_stopped(first)
    second = stage.zygote.start(space.tenant.id, history)
    assert second.wait() == BUSY, stage.zygote.last_words()
    psutil.Process(first.pid).send_signal(signal.SIGCONT)
    assert first.wait() == 0, stage.zygote.last_words()
    assert differences(remains(space), stage.course("history").remains) == []


def test_resume_needs_nothing_of_prefect(stage: Stage) -> None:
    """A run is killed, Prefect's server forgets all it ever knew, and the run resumes all the same."""
    space, history = stage.new_tenant("forgotten"), stage.until("history")
    killed = stage.start(space, history, stop_at="training: finish_training_batch 5")
    assert killed.wait() == -signal.SIGKILL
    url = stage.platform.cluster.prefect_url.replace("+asyncpg", "")
    with psycopg.connect(url) as connection:
        connection.execute("TRUNCATE flow, flow_run, task_run, flow_run_state, task_run_state, log, events CASCADE")
    again = stage.complete(space, history)
    assert "training: start_batch 6" in again
    assert "training: start_batch 5" not in again
    assert differences(remains(space), stage.course("history").remains) == []


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        pytest.param("between-flows", "ingestion: upload is ingested", marks=pytest.mark.slow),
        ("in-a-batch", "training: finish_training_batch 2"),
        pytest.param("in-the-registry", "training: mlflow create_run", marks=pytest.mark.slow),
        ("before-the-switch", "promotion: mlflow create_model_version"),
    ],
)
def test_database_restarts_in_the_middle_of_a_run(stage: Stage, name: str, moment: str) -> None:
    """The database of Orchard, Prefect and MLflow goes away for a moment; the run waits for it and ends as ever."""
    space, history = stage.new_tenant(name), stage.until("history")
    child = stage.start(space, history, stop_at=moment, number=signal.SIGSTOP)
    wait_until_stopped(child)
    postgres.stop(stage.platform.settings.home)
    psutil.Process(child.pid).send_signal(signal.SIGCONT)
    time.sleep(0.5)  # long enough for the run to find it gone
    started_cluster(stage.platform.settings)
    assert child.wait() == 0, stage.zygote.last_words()
    assert differences(remains(space), stage.course("history").remains) == []


def wait_until_stopped(child: Child) -> None:
    """Waits until the run has sent itself SIGSTOP."""
    deadline = time.monotonic() + 60
    while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        assert child.wait(0) is None
        time.sleep(0.02)
