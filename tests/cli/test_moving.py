"""A tenant that moves keeps all it has, wherever the move is cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from deployments import moving
from infra.database.audit import Audit
from infra.database.cluster import connected_cluster
from infra.database.connect import transact
from infra.database.online_usage import OnlineUnit, Used, book_online
from infra.database.operator import Operator
from infra.database.transfer import content
from infra.places import places
from infra.settings import Settings
from infra.space import open_space
from tasks.domain.errors import Busy, StorageUnavailable
from tasks.domain.names import Purpose
from tasks.domain.tenant import Isolation, TenantState
from tests.cli.shop import history, scoring
from tests.cli.terminal import Terminal
from tests.cli.test_runs import TRAINING, hand_in, releases, started


def seen(orchard: Terminal, tenant: str) -> list[object]:
    """What the tenant sees of its work, but for when it was done."""
    results = orchard("results", tenant, "sales", "--json").worked().json
    models = orchard("models", tenant, "sales", "--json").worked().json
    return [results, models, releases(orchard, tenant)]


def prepared(orchard: Terminal, tenant: str) -> None:
    started(orchard, tenant, estimators=["lightgbm"], training=TRAINING)
    hand_in(orchard, tenant, "scoring", scoring())


def test_a_tenant_moves_into_a_silo_and_back(orchard: Terminal, settings: Settings) -> None:
    prepared(orchard, "nomad")
    before = seen(orchard, "nomad")
    cluster = connected_cluster(settings)
    assert content(cluster.operator_url, "nomad")["predictions"].rows

    assert "silo now" in orchard("tenants", "move", "nomad", "--to", "silo").worked().out
    assert seen(orchard, "nomad") == before
    assert not any(each.rows for each in content(cluster.operator_url, "nomad").values())
    assert not any(place.local.exists() for place in places(settings, "nomad", Isolation.POOL).all() if place.local)
    space = open_space(settings, "nomad")
    assert space.records.releases("sales")[0].source.startswith(f"file://{settings.home}/silos/nomad/")
    hand_in(orchard, "nomad", "history", history(5, first="2026-04-01"))
    hand_in(orchard, "nomad", "scoring", scoring(2, first="2026-07-01"))
    assert "nomad" in set(Operator(cluster).status()["tenant"])
    later = seen(orchard, "nomad")
    assert len(str(later)) > len(str(before))
    assert "already" in orchard("tenants", "move", "nomad", "--to", "silo").worked().out

    orchard("tenants", "move", "nomad", "--to", "bridge").worked()
    assert seen(orchard, "nomad") == later
    assert not (settings.home / "silos" / "nomad" / "lake").exists()
    databases = transact(cluster.operator_url, lambda c: c.exec_driver_sql("SELECT datname FROM pg_database").all())
    assert ("tenant_nomad",) not in databases
    hand_in(orchard, "nomad", "history", history(5, first="2026-05-01"))  # run ids go on
    audited = Audit(cluster).entries("nomad")
    assert (audited["action"] == "tenant.moved").sum() == 2


@pytest.mark.parametrize("to", ["silo", "pool"])
def test_a_move_that_was_cut_off_goes_on_or_back(
    orchard: Terminal, settings: Settings, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    tenant = f"cut-off-{to}"
    prepared(orchard, tenant)
    before, old_space = seen(orchard, tenant), open_space(settings, tenant)
    copied = []

    def failing(*arguments: object) -> object:
        from infra.lake.transfer import copy_files

        if copied:
            raise StorageUnavailable("the disk is full")
        copied.append(copy_files(*arguments))  # type: ignore[arg-type]
        return copied[-1]

    with monkeypatch.context() as patched:
        patched.setattr("deployments.moving.copy_files", failing)
        orchard("tenants", "move", tenant, "--to", "silo").failed(1, "disk is full")
    assert Operator(connected_cluster(settings)).state(tenant) is TenantState.MOVING
    Path("late.csv").write_text(scoring(2))
    orchard("upload", tenant, "sales", "scoring", "late.csv").failed(1, "moving")
    assert seen(orchard, tenant) == before  # to look is allowed

    orchard("tenants", "move", tenant, "--to", to).worked()
    assert seen(orchard, tenant) == before
    if to == "silo":
        with pytest.raises(Busy, match="moved"), old_space.records.lock("sales"):
            pass
        with pytest.raises(Busy, match="moved"):
            old_space.records.add_upload("sales", Purpose.SCORING, "u", "a.csv", 1, "aa")
    hand_in(orchard, tenant, "scoring", scoring(2, first="2026-08-01"))
    assert not (settings.home / ("lake/tenants" if to == "silo" else "silos") / tenant / "lake").exists()


def test_what_is_booked_during_a_move_moves_too(
    orchard: Terminal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Online requests are answered meanwhile."""
    prepared(orchard, "busy-nomad")
    cluster, booked = connected_cluster(settings), list[OnlineUnit]()

    def disturbed(act: Callable[..., object]) -> Callable[..., object]:
        def first_it_and_then_a_booking(*arguments: object) -> object:
            result = act(*arguments)
            used = Used(requests=1, rows=1, cpu_s=0.1)
            booked.append(OnlineUnit("busy-nomad", "sales", 1, f"online/{len(booked)}", "p", used))
            assert list(book_online(cluster, booked[-1:]))
            return result

        return first_it_and_then_a_booking

    for to in ("silo", "pool"):
        with monkeypatch.context() as patched:
            for name in ("copy_rows", "copy_files", "repoint_releases", "repoint"):
                patched.setattr(f"deployments.moving.{name}", disturbed(getattr(moving, name)))
            orchard("tenants", "move", "busy-nomad", "--to", to).worked()
        url = cluster.silo_url("busy-nomad") if to == "silo" else cluster.operator_url
        query = text("SELECT unit FROM usage WHERE tenant = 'busy-nomad' AND stage = 'online'")
        found = transact(url, lambda connection, query=query: connection.scalars(query).all())
        assert sorted(found) == sorted(each.unit for each in booked), to


@pytest.mark.slow
def test_a_move_waits_for_runs_and_gives_up(orchard: Terminal, settings: Settings) -> None:
    prepared(orchard, "occupied")
    with open_space(settings, "occupied").records.lock("sales"):
        orchard("tenants", "move", "occupied", "--to", "silo", "--drain", "1").failed(1, "have not ended")
    orchard("tenants", "move", "occupied", "--to", "pool").worked()  # called off
    hand_in(orchard, "occupied", "scoring", scoring(2, first="2026-08-01"))
