"""The cache of models keeps within its bytes, loads once, and is fair."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.serving.cache import ModelCache, bytes_of
from tasks.scorer import Model

SIZE = 48_000
EACH = bytes_of(Model("linear", {}, None, SIZE))
SHARES = {"free": 0.2, "premium": 0.8}


def model(size: int = SIZE) -> Model:
    return Model("linear", {}, None, size)


def asked(cache: ModelCache, tenant: str, *names: str, tier: str = "free") -> list[str]:
    """Asks for models in turn; those that had to be loaded."""
    loaded = []
    for name in names:

        def load(name: str = name) -> Model:
            loaded.append(name)
            return model()

        cache.get(tier, tenant, (name,), load)
    return loaded


def test_a_model_is_loaded_once_however_many_wait_for_it() -> None:
    cache, loads = ModelCache(100 * EACH, {"free": 1.0}), []
    started = threading.Barrier(16)

    def load() -> Model:
        loads.append(1)
        time.sleep(0.05)  # long enough that all others have come
        return model()

    def ask(_: int) -> Model:
        started.wait()
        return cache.get("free", "acme", ("a",), load)

    with ThreadPoolExecutor(16) as pool:
        found = set(map(id, pool.map(ask, range(16))))
    assert len(loads) == 1
    assert len(found) == 1


def test_a_load_that_fails_fails_all_who_wait_and_is_tried_again() -> None:
    cache, loads = ModelCache(100 * EACH, {"free": 1.0}), []
    started = threading.Barrier(8)

    def broken() -> Model:
        loads.append(1)
        time.sleep(0.05)  # long enough that all others have come
        raise OSError("away")

    def ask(_: int) -> None:
        started.wait()
        with pytest.raises(OSError, match="away"):
            cache.get("free", "acme", ("a",), broken)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert len(loads) == 1
    assert asked(cache, "acme", "a") == ["a"]


def test_a_sweep_leaves_what_is_asked_for_again_and_again() -> None:
    cache = ModelCache(10 * EACH, {"free": 1.0})
    asked(cache, "acme", "a", "b", "a", "b")
    assert len(asked(cache, "acme", *(f"sweep-{n}" for n in range(100)))) == 100
    assert asked(cache, "acme", "a", "b") == []


def test_a_tenant_that_sweeps_evicts_itself() -> None:
    cache = ModelCache(10 * EACH, {"free": 1.0})
    steady = ["a", "b", "c"]
    asked(cache, "steady", *steady)  # once only: nothing is protected
    asked(cache, "sweeping", *(f"s{n}" for n in range(200)))
    assert asked(cache, "steady", *steady) == []
    assert cache.bytes_of_tenant("free", "sweeping") == 7 * EACH


def test_tiers_have_shares_of_their_own() -> None:
    cache = ModelCache(10 * EACH, SHARES)
    asked(cache, "paying", *(f"p{n}" for n in range(8)), tier="premium")
    asked(cache, "sweeping", *(f"s{n}" for n in range(100)))
    assert asked(cache, "paying", *(f"p{n}" for n in range(8)), tier="premium") == []
    assert cache.bytes_of_tier("free") <= 2 * EACH


def test_what_is_too_large_serves_and_is_not_kept() -> None:
    cache = ModelCache(EACH // 2, {"free": 1.0})
    assert asked(cache, "acme", "a", "a") == ["a", "a"]
    assert cache.bytes_of_tier("free") == 0


def test_a_release_that_serves_no_more_is_forgotten() -> None:
    cache = ModelCache(10 * EACH, {"free": 1.0})
    for release in ("1", "2"):
        cache.get("free", "acme", (release, "a"), model)
    cache.forget("free", "acme", ("1",))
    assert cache.bytes_of_tenant("free", "acme") == EACH
    cache.forget("free", "acme")
    assert cache.bytes_of_tier("free") == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.integers(0, 12), st.integers(100, 60_000), st.booleans()), max_size=120
    )
)
def test_law_bytes_add_up_and_never_exceed_the_limit(requests: list[tuple[str, int, int, bool]]) -> None:
    limit = 300_000
    cache = ModelCache(limit, {"free": 1.0})
    for tenant, number, size, forget in requests:
        cache.get("free", tenant, (str(number % 2), str(number)), lambda size=size: model(size))  # type: ignore[misc]
        if forget:
            cache.forget("free", tenant, (str(number % 2),))
        total = cache.bytes_of_tier("free")
        assert 0 <= total <= limit
        assert total == sum(cache.bytes_of_tenant("free", name) for name in "ABC")
