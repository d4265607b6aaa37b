"""Which training runs may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.names import Stage
from tasks.domain.run import Run, RunStatus
from tasks.training.retention import removable

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CUTOFF = NOW - timedelta(days=90)


def run(run_id: int, *, days_old: float = 100, version: int = 0, bundle: int | None = None, **fields: Any) -> Run:
    ended = NOW - timedelta(days=days_old)
    receipt = {"bundle_run": bundle or run_id} | fields.pop("receipt", {})
    values = {"status": RunStatus.FINISHED, "started_at": ended, "finished_at": ended, "receipt": receipt} | fields
    return Run(
        run_id=run_id, key=str(run_id), use_case="sales", stage=Stage.TRAINING, dataset_version=version, **values
    )


def gone(runs: list[Run], oldest: int = 10, releases: set[int] | None = None) -> list[int]:
    newest_first = sorted(runs, key=lambda each: -each.run_id)
    return sorted(each.run_id for each in removable(newest_first, oldest, releases or set(), CUTOFF))


def test_what_ended_long_ago_goes() -> None:
    assert gone([run(1), run(2), run(3, days_old=1)]) == [1, 2]


def test_the_last_one_stays_however_old_it_is() -> None:
    assert gone([run(1), run(2), run(3)]) == [1, 2]
    look_back = run(4, receipt={"look_back": True})
    failed = run(5, status=RunStatus.FAILED)
    assert gone([run(1), run(2), run(3), look_back, failed]) == [1, 2, 4, 5]


def test_what_can_still_be_looked_back_at_stays() -> None:
    assert gone([run(1, version=8), run(2, version=9), run(3, version=9)], oldest=9) == [1]


def test_a_run_that_holds_the_models_of_one_that_is_needed_stays() -> None:
    unchanged = [run(1), run(2), run(3, bundle=1), run(4, bundle=1, days_old=1)]
    assert gone(unchanged) == [2, 3]


def test_what_a_release_is_made_of_stays() -> None:
    assert gone([run(1), run(2), run(3)], releases={1}) == [2]


def test_a_run_that_never_ended_is_as_old_as_its_beginning() -> None:
    killed = run(1, status=RunStatus.RUNNING, finished_at=None, receipt={})
    assert gone([killed, run(2)]) == [1]
    young = run(1, days_old=1, status=RunStatus.RUNNING, finished_at=None, receipt={})
    assert gone([young, run(2)]) == []


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20), st.booleans(), st.booleans()), max_size=8),
    st.integers(0, 20),
)
def test_no_needed_run_lacks_the_run_that_holds_its_models(
    facts: list[tuple[int, int, bool, bool]], oldest: int
) -> None:
    runs: list[Run] = []
    holder = 1
    for number, (days, version, changed, looks) in enumerate(facts, start=1):
        holder = number if changed or not runs else holder
        runs.append(run(number, days_old=days, version=version, bundle=holder, receipt={"look_back": looks}))
    removed = set(gone(runs, oldest))
    kept = [each for each in runs if each.run_id not in removed]
    assert all(each.receipt["bundle_run"] not in removed for each in kept)
    assert all(
        (each.finished_at or NOW) < CUTOFF and (each.dataset_version or 0) < oldest
        for each in runs
        if each.run_id in removed
    )
