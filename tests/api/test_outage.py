"""The database goes away: who was let in of late still is, and nobody else."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from deployments.api.keyring import KEPT_S, TRUSTED_S, Keyring
from deployments.serving.breaker import OPEN_S, Breaker
from deployments.serving.releases import REFRESH_S
from infra import postgres
from infra.database.cluster import started_cluster
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.settings import Settings
from tasks.domain.access import Role
from tasks.domain.errors import DatabaseUnavailable
from tests.api.served import problem, serve, wait_for
from tests.samples import sample_tenant

WRONG = f"orc_{'x' * 43}"


def test_without_a_database(own: Settings) -> None:
    cluster = started_cluster(own)
    Operator(cluster).onboard(sample_tenant("dark"))
    keys = Keys(cluster)
    reader_id, reader = keys.create("dark", "reader", Role.READER)
    _, unseen = keys.create("dark", "unseen")
    _, brief = keys.create("dark", "brief", life=timedelta(hours=1))
    now, today = [0.0], [datetime.now(UTC)]
    ring = Keyring(own, Breaker(lambda: now[0]), clock=lambda: now[0], now=lambda: today[0])
    with serve(own) as api, api.client(reader) as known, api.client(unseen) as stranger, api.client("odd") as nobody:
        assert known.get("/v1/key").status_code == 200
        for key in (reader, brief):
            assert ring.holder(key) is not None
        postgres.stop(own.home)
        time.sleep(KEPT_S)

        began = time.monotonic()
        assert known.get("/v1/key").status_code == 200
        problem(known.post("/v1/sales/jobs", content=b"{}"), 403, "forbidden")  # what needs no database is answered
        problem(known.get("/v1/uploads"), 503, "unavailable")
        assert problem(stranger.get("/v1/key"), 503, "unavailable")
        problem(nobody.get("/v1/key"), 401, "unauthenticated")
        assert time.monotonic() - began < 5

        for key in (WRONG, unseen):
            with pytest.raises(DatabaseUnavailable):
                ring.holder(key)
        for after_s in (KEPT_S, 300.0, TRUSTED_S - 1):
            now[0] = after_s
            assert ring.holder(reader) is not None
        today[0] += timedelta(hours=1)
        assert ring.holder(brief) is None
        now[0] = TRUSTED_S
        now[0] += OPEN_S
        with pytest.raises(DatabaseUnavailable):
            ring.holder(reader)
        assert not ring.remembers(reader)

        keys = Keys(started_cluster(own))
        with pytest.raises(DatabaseUnavailable, match="a moment ago"):
            ring.holder(reader)
        now[0] += OPEN_S
        assert ring.holder(reader) is not None
        wait_for(lambda: stranger.get("/v1/key").status_code == 200, REFRESH_S + 1)  # requests do not find it out
        assert known.get("/v1/uploads").status_code == 200
        keys.revoke("dark", reader_id)
        now[0] += KEPT_S
        assert ring.holder(reader) is None
