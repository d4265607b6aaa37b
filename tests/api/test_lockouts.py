"""Who fails too often is not listened to: for how long, and who is."""

from __future__ import annotations

import itertools
import time

import pytest

from deployments.api.lockouts import FAILURES, MAX_KEPT, Lockouts, network_of
from infra.database.audit import Audit
from infra.database.cluster import Cluster
from infra.database.keys import Keys
from infra.database.operator import Operator
from infra.settings import Settings
from tests.api.served import Api, problem, serve, wait_for
from tests.samples import sample_tenant

WRONG = f"orc_{'x' * 43}"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail(lockouts: Lockouts, address: str = "192.0.2.1", times: int = FAILURES) -> float:
    return [lockouts.failed(address) for _ in range(times)][-1]


def test_it_doubles_up_to_a_quarter_of_an_hour() -> None:
    clock = Clock()
    lockouts = Lockouts(clock=clock)
    assert fail(lockouts, times=FAILURES - 1) == 0
    assert lockouts.wait_s("192.0.2.1") == 0
    lengths = [fail(lockouts, times=1)]
    assert lockouts.wait_s("192.0.2.1") == 60
    assert lockouts.wait_s("192.0.2.2") == 0
    for _ in range(5):
        clock.now += lockouts.wait_s("192.0.2.1")
        assert lockouts.wait_s("192.0.2.1") == 0
        lengths.append(fail(lockouts))
    assert lengths == [60, 120, 240, 480, 900, 900]
    clock.now += 900 + 900  # and after as long a calm, it begins anew
    assert fail(lockouts) == 60


def test_failures_far_apart_do_not_count() -> None:
    clock = Clock()
    lockouts = Lockouts(clock=clock)
    for _ in range(10 * FAILURES):
        assert lockouts.failed("192.0.2.1") == 0
        clock.now += 60 / FAILURES + 0.2


def test_its_memory_is_bounded() -> None:
    lockouts = Lockouts()
    for number in range(MAX_KEPT + 500):
        lockouts.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(lockouts._records) == MAX_KEPT
    fail(lockouts, times=50 * FAILURES)
    assert all(len(record.failures) <= FAILURES for record in lockouts._records.values())


def test_a_network_of_ipv6_is_one_client() -> None:
    lockouts = Lockouts()
    for number in range(FAILURES):
        lockouts.failed(f"2001:db8::{number:x}")
    assert lockouts.wait_s("2001:db8::ffff:1") > 0
    assert lockouts.wait_s("2001:db8:0:1::1") == 0
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("unknown") == "unknown"


@pytest.mark.parametrize("wrong", [WRONG, f"orc_op_{'x' * 43}", "orc_", "nonsense"])
def test_a_flood_of_wrong_keys_is_locked_out(api_settings: Settings, postgres: Cluster, wrong: str) -> None:
    clock = Clock()
    with serve(api_settings, lockouts=Lockouts(clock=clock)) as api, api.client(wrong) as client:
        for _ in range(FAILURES):
            problem(client.get("/v1/uploads"), 401, "unauthenticated")
        answer = client.get("/v1/uploads")
        assert "60 s" in problem(answer, 429, "locked-out")
        assert answer.headers["Retry-After"] == "60"
        with api.client() as nobody:
            assert nobody.get("/healthz").status_code == 200
            problem(nobody.get("/v1/uploads"), 429, "locked-out")
        clock.now += 60
        problem(client.get("/v1/uploads"), 401, "unauthenticated")

    def told() -> bool:
        newest = Audit(postgres).entries(action="access.lockout", limit=1)
        return len(newest) == 1 and newest["details"][0] == {"seconds": 60}

    wait_for(told)
    newest = Audit(postgres).entries(action="access.lockout", limit=1).iloc[0]
    assert (newest["outcome"], newest["actor"], newest["origin"]) == ("refused", "unknown", "api 127.0.0.1")


def test_a_good_key_of_the_same_address_goes_on(api_settings: Settings, keys: Keys, operator: Operator) -> None:
    operator.onboard(sample_tenant("api-behind-proxy"))
    key_id, key = keys.create("api-behind-proxy", "before")
    _, later = keys.create("api-behind-proxy", "later")
    with serve(api_settings, lockouts=Lockouts()) as api, api.client(key) as good, api.client(WRONG) as wrong:
        assert good.get("/v1/uploads").status_code == 200
        for _ in range(FAILURES + 1):
            wrong.get("/v1/uploads")
        problem(wrong.get("/v1/uploads"), 429, "locked-out")
        assert good.get("/v1/uploads").status_code == 200
        with api.client(later) as unknown:  # one that was not seen of late waits with the others
            problem(unknown.get("/v1/uploads"), 429, "locked-out")
        keys.revoke("api-behind-proxy", key_id)
        wait_for(lambda: good.get("/v1/uploads").status_code != 200)
        answers = [good.get("/v1/uploads") for _ in range(2)]
        assert {answer.status_code for answer in answers} <= {401, 429}


def test_the_hook_secret_is_guarded_too(api_settings: Settings) -> None:
    with serve(api_settings, lockouts=Lockouts()) as api, api.client("guess") as guesser, api.hook() as hook:
        codes = [guesser.post("/hooks/s3", json={}).status_code for _ in range(FAILURES + 2)]
        assert codes == [401] * FAILURES + [429] * 2
        assert hook.post("/hooks/s3", json={}).status_code not in (401, 429)


def test_nobody_says_where_a_request_comes_from_but_a_trusted_proxy(api_settings: Settings) -> None:
    with serve(api_settings, lockouts=Lockouts()) as api, api.client("guess") as guesser:
        for number in range(FAILURES):
            guesser.get("/v1/key", headers={"X-Forwarded-For": f"198.51.100.{number}"})
        answer = guesser.get("/v1/key", headers={"X-Forwarded-For": "198.51.100.77"})
        problem(answer, 429, "locked-out")


def test_who_presents_nothing_is_not_counted(api_settings: Settings) -> None:
    with serve(api_settings, lockouts=Lockouts()) as api, api.client() as nobody:
        codes = {nobody.get("/v1/uploads").status_code for _ in range(2 * FAILURES)}
        assert codes == {401}


def test_a_flood_is_refused_faster_than_it_comes(api: Api, api_settings: Settings) -> None:
    lockouts = Lockouts()
    fail(lockouts, "127.0.0.1")
    with serve(api_settings, lockouts=lockouts) as locked, locked.client(WRONG) as client:
        began = time.monotonic()
        for _ in itertools.repeat(None, 100):
            assert client.get("/v1/uploads").status_code == 429
        assert time.monotonic() - began < 5
