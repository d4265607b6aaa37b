"""Parsed models in memory, bounded by bytes: a share per tier, and within it fair to tenants.

What is asked for once does not push out what is asked for again and again: a tenant's models are kept in two segments,
and only a second request moves a model into the protected one (segmented LRU; Karedla, Love and Wherry 1994). When a
tier's share is full, the tenant that holds most of it gives way: one that sweeps over all its partitions evicts itself.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from tasks.scorer import Model

PROTECTED = 0.8
"""Share of its tier's bytes that a tenant's models which were asked for again may take."""

OVERHEAD_BYTES = 4_096
"""Of a parsed model, beyond its text: objects of Python."""

Key = tuple[str, ...]


def bytes_of(model: Model) -> int:
    """What a parsed model takes: LightGBM's arrays are about as large as its text."""
    return OVERHEAD_BYTES + 2 * model.size


@dataclass
class _Kept:
    """One tenant's models: the key says which, the value how many bytes each takes."""

    most_protected: float
    fresh: OrderedDict[Key, tuple[Model, int]] = field(default_factory=OrderedDict)
    protected: OrderedDict[Key, tuple[Model, int]] = field(default_factory=OrderedDict)
    bytes: int = 0
    protected_bytes: int = 0

    def find(self, key: Key) -> Model | None:
        if key in self.protected:
            self.protected.move_to_end(key)
            return self.protected[key][0]
        if key not in self.fresh:
            return None
        model, size = self.protected[key] = self.fresh.pop(key)
        self.protected_bytes += size
        while self.protected_bytes > self.most_protected:
            oldest, (demoted, its_size) = self.protected.popitem(last=False)
            self.protected_bytes -= its_size
            self.fresh[oldest] = (demoted, its_size)
        return model

    def add(self, key: Key, model: Model, size: int) -> None:
        self.fresh[key] = (model, size)
        self.bytes += size

    def drop_one(self) -> int:
        """Drops the model that is least likely to be asked for again; its bytes."""
        if self.fresh:
            _, (_, size) = self.fresh.popitem(last=False)
        else:
            _, (_, size) = self.protected.popitem(last=False)
            self.protected_bytes -= size
        self.bytes -= size
        return size

    def drop(self, wanted: Callable[[Key], bool]) -> int:
        """Drops the models whose keys are wanted gone; their bytes."""
        dropped = 0
        for segment in (self.fresh, self.protected):
            for key in [key for key in segment if wanted(key)]:
                _, size = segment.pop(key)
                dropped += size
                if segment is self.protected:
                    self.protected_bytes -= size
        self.bytes -= dropped
        return dropped


class ModelCache:
    """Models of all tenants; threads share it. However many ask for a model that is not there, it is loaded once."""

    def __init__(self, limit_bytes: int, shares: Mapping[str, float]) -> None:
        """`shares`: each tier's share of the limit; together at most 1."""
        self._limits = {tier: int(limit_bytes * share) for tier, share in shares.items()}
        self._lock = threading.Lock()
        self._kept: dict[str, dict[str, _Kept]] = {tier: {} for tier in shares}
        self._bytes = dict.fromkeys(shares, 0)
        self._loading: dict[tuple[str, Key], Future[Model]] = {}
        self.hits = self.misses = 0

    def get(self, tier: str, tenant: str, key: Key, load: Callable[[], Model]) -> Model:
        """The tenant's model of that key, loaded if need be."""
        with self._lock:
            kept = self._kept[tier].get(tenant)
            if kept is not None and (found := kept.find(key)) is not None:
                self.hits += 1
                return found
            self.misses += 1
            waiting = self._loading.get((tenant, key))
            if waiting is None:
                mine = self._loading[tenant, key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            model = load()
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            self._keep(tier, tenant, key, model)
            mine.set_result(model)
            return model
        finally:
            with self._lock:
                self._loading.pop((tenant, key), None)

    def _keep(self, tier: str, tenant: str, key: Key, model: Model) -> None:
        size, limit = bytes_of(model), self._limits[tier]
        if size > limit:
            return  # it serves this once
        with self._lock:
            tenants = self._kept[tier]
            while self._bytes[tier] + size > limit:
                largest = max(tenants, key=lambda name: tenants[name].bytes)
                self._bytes[tier] -= tenants[largest].drop_one()
            tenants.setdefault(tenant, _Kept(PROTECTED * limit)).add(key, model, size)
            self._bytes[tier] += size

    def bytes_of_model(self, tier: str, tenant: str, key: Key) -> int | None:
        """What a model takes; None where it is not in memory. That counts as no request for it."""
        kept = self._kept[tier].get(tenant)
        if kept is None:
            return None
        found = kept.protected.get(key) or kept.fresh.get(key)
        return found[1] if found is not None else None

    def forget(self, tier: str, tenant: str, prefix: Key = ()) -> None:
        """Drops a tenant's models whose keys begin like that: of a release that serves no more, or all."""
        with self._lock:
            if (kept := self._kept[tier].get(tenant)) is not None:
                self._bytes[tier] -= kept.drop(lambda key: key[: len(prefix)] == prefix)
                if not kept.bytes:
                    del self._kept[tier][tenant]

    def models_of_tier(self, tier: str) -> int:
        """How many models it holds for the tier."""
        with self._lock:
            return sum(len(each.fresh) + len(each.protected) for each in self._kept[tier].values())

    def bytes_of_tier(self, tier: str) -> int:
        """What the tier's models take now."""
        return self._bytes[tier]

    def bytes_of_tenant(self, tier: str, tenant: str) -> int:
        """What the tenant's models take now."""
        kept = self._kept[tier].get(tenant)
        return kept.bytes if kept is not None else 0


@dataclass(frozen=True)
class TenantModels:
    """Implements `tasks.scorer.Models`: the part of the cache that one release of one tenant uses."""

    cache: ModelCache
    tier: str
    tenant: str
    release: Key

    def get(self, partition: str, load: Callable[[], Model]) -> Model:
        return self.cache.get(self.tier, self.tenant, (*self.release, partition), load)

    def bytes_held(self, partition: str) -> int | None:
        """What the partition's model takes; None where it is not in memory."""
        return self.cache.bytes_of_model(self.tier, self.tenant, (*self.release, partition))
