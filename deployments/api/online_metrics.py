"""Figures of online scoring for Prometheus: what this process has in memory, and how well that serves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from deployments.serving.cache import ModelCache
from deployments.serving.releases import Releases


class ServingCollector(Collector):
    """Asks nobody. No tenant is named."""

    def __init__(self, cache: ModelCache, releases: Releases, tiers: Sequence[str]) -> None:
        self._cache, self._releases, self._tiers = cache, releases, tiers

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when it is scraped."""
        return []

    def collect(self) -> Iterable[Metric]:
        sizes = GaugeMetricFamily("orchard_models_bytes", "What models in memory take.", labels=["tier"])
        counts = GaugeMetricFamily("orchard_models", "Models in memory.", labels=["tier"])
        for tier in self._tiers:
            sizes.add_metric([tier], self._cache.bytes_of_tier(tier))
            counts.add_metric([tier], self._cache.models_of_tier(tier))
        yield sizes
        yield counts
        yield CounterMetricFamily("orchard_model_hits", "Models that were in memory.", value=self._cache.hits)
        yield CounterMetricFamily("orchard_model_misses", "Models that had to be loaded.", value=self._cache.misses)
        yield GaugeMetricFamily("orchard_releases_open", "Releases in memory.", value=self._releases.opened())
        yield GaugeMetricFamily(
            "orchard_stale_seconds",
            "For how long nobody could say which releases serve; 0 while that is known.",
            value=self._releases.stale_s(),
        )
