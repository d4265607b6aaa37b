"""What serves is kept up with for each tenant, whatever is wrong with another's."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from deployments.serving.breaker import Breaker
from deployments.serving.cache import ModelCache
from deployments.serving.precomputed import OPEN_S, Precomputed
from deployments.serving.releases import IDLE_S, KEPT_OPEN_S, STALE_S, Releases, TooManyOpenings
from infra.database.cluster import Cluster
from infra.database.connect import session
from infra.database.tables import predictions_of
from infra.settings import Settings
from tasks.domain.errors import NotFound
from tasks.domain.tenant import Isolation
from tasks.scorer import Scorer
from tests.api.served import wait_for
from tests.serving.deployed import deploy, onboarded, store_answers


@pytest.fixture
def now() -> list[float]:
    return [1_000.0]


@pytest.fixture
def serving(settings: Settings, now: list[float]) -> Iterator[Releases]:
    shares = {"free": 0.2, "standard": 0.3, "premium": 0.5}
    found = Releases(settings, ModelCache(10**8, shares), Breaker(lambda: now[0]), clock=lambda: now[0])
    yield found
    found.close()


def test_a_silo_that_does_not_answer_keeps_nobody_else_from_a_new_release(
    serving: Releases, settings: Settings, postgres: Cluster, tmp_path: Path, now: list[float]
) -> None:
    walled = onboarded(settings, postgres, "rel-walled", isolation=Isolation.SILO)
    calm = onboarded(settings, postgres, "rel-calm")
    for space in (walled, calm):
        deploy(space, tmp_path / space.tenant.id, 1)
        assert serving.serving(space.tenant.id, "demand").version == 1
    with session(postgres.silo_url("rel-walled")) as busy:
        busy.execute(text("BEGIN"))
        busy.execute(text("LOCK TABLE releases IN ACCESS EXCLUSIVE MODE"))  # as an upgrade of the schema does
        deploy(calm, tmp_path / "rel-calm", 2)
        serving.refresh()
        now[0] += STALE_S + 1
        serving.refresh()
        assert serving.serving("rel-calm", "demand").version == 2
        assert serving.stale_s("rel-calm") == 0
        assert serving.serving("rel-walled", "demand").version == 1  # goes on, and says so
        assert serving.stale_s("rel-walled") > STALE_S
        busy.execute(text("ROLLBACK"))

    def heard() -> bool:
        serving.refresh()
        return serving.stale_s("rel-walled") == 0

    wait_for(heard)
    assert serving.serving("rel-walled", "demand").version == 1


def test_a_release_that_cannot_be_opened_keeps_no_other_from_being_replaced(
    serving: Releases,
    settings: Settings,
    postgres: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spaces = [onboarded(settings, postgres, name) for name in ("rel-broken", "rel-sound")]
    for space in spaces:
        deploy(space, tmp_path / space.tenant.id, 1)
        serving.serving(space.tenant.id, "demand")
        deploy(space, tmp_path / space.tenant.id, 2)
    opening = Scorer.open

    def fails_for_one(folder: Path, *rest: object) -> object:
        if "rel-broken" in str(folder):
            raise OSError(5, "Input/output error")  # of a disk, which no test has
        return opening(folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Scorer, "open", fails_for_one)
    serving.refresh()
    assert serving.serving("rel-broken", "demand").version == 1
    assert serving.serving("rel-sound", "demand").version == 2


def test_what_nobody_asks_for_is_closed_without_a_thread_for_each(
    serving: Releases, settings: Settings, postgres: Cluster, tmp_path: Path, now: list[float]
) -> None:
    deploy(onboarded(settings, postgres, "rel-idle"), tmp_path)
    held = serving.serving("rel-idle", "demand")
    closed: list[float] = []
    held.files.callback(lambda: closed.append(now[0]))
    now[0] += IDLE_S + 1
    serving.refresh()
    assert (serving.opened(), closed) == (0, [])  # a request may still use it
    wait_for(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()), 5)
    now[0] += KEPT_OPEN_S + 1
    serving.refresh()
    assert closed == [now[0]]
    serving.serving("rel-idle", "demand").files.callback(lambda: closed.append(-1))
    serving.close()
    assert closed[1:] == [-1]


def test_who_asks_for_what_does_not_exist_is_slowed_down(
    serving: Releases, settings: Settings, postgres: Cluster, tmp_path: Path, now: list[float]
) -> None:
    deploy(onboarded(settings, postgres, "rel-guessed"), tmp_path)
    with pytest.raises(TooManyOpenings) as slowed:  # noqa: PT012  # it is one of many that fails
        for _ in range(100):
            with pytest.raises(NotFound):
                serving.serving("rel-guessed", f"x{secrets.token_hex(4)}")
    assert slowed.value.wait_s >= 1
    now[0] += slowed.value.wait_s
    assert serving.serving("rel-guessed", "demand").version == 1


def test_a_lookup_that_comes_too_late_ends_no_other_tenants_lookups(
    serving: Releases, settings: Settings, postgres: Cluster, tmp_path: Path, now: list[float]
) -> None:
    spaces = [onboarded(settings, postgres, name, precomputed_s=3600.0) for name in ("rel-slow", "rel-stored")]
    keys = [store_answers(space, deploy(space, tmp_path / space.tenant.id)) for space in spaces]
    slow, stored = (serving.serving(space.tenant.id, "demand") for space in spaces)
    precomputed = Precomputed(clock=lambda: now[0])
    with session(postgres.operator_url) as busy:
        busy.execute(text("BEGIN"))
        busy.execute(text(f'LOCK TABLE "{predictions_of("rel-slow")}" IN ACCESS EXCLUSIVE MODE'))
        assert precomputed.find(slow, keys[0]) == {}
        busy.execute(text("ROLLBACK"))
    assert len(precomputed.find(stored, keys[1])) == len(keys[1])
    assert precomputed.find(slow, keys[0]) == {}  # not asked for a while
    now[0] += OPEN_S + 1
    assert len(precomputed.find(slow, keys[0])) == len(keys[0])
