"""Metrics by the service's rules: one prefix, a registry of its own, sums over processes."""

from collections.abc import Sequence
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
)

from loss_scoring.service.telemetry.histogram import BulkHistogram

PREFIX = "loss_scoring_"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]  # several processes cannot tell them


class Families:
    """Makes metrics in a registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def counter(self, name: str, help_: str, *labels: str) -> Counter:
        """Return a counter; ``_total`` is added to its name."""
        return Counter(PREFIX + name, help_, labels, registry=self.registry)

    def gauge(
        self, name: str, help_: str, *labels: str, mode: Literal["livesum", "livemax"] = "livesum"
    ) -> Gauge:
        """Return a gauge; of several processes that run the sum is shown, or the largest."""
        return Gauge(PREFIX + name, help_, labels, registry=self.registry, multiprocess_mode=mode)

    def histogram(
        self, name: str, help_: str, buckets: Sequence[float], *labels: str
    ) -> BulkHistogram:
        """Return a histogram."""
        bounds = tuple(map(float, buckets))
        return BulkHistogram(PREFIX + name, help_, labels, buckets=bounds, registry=self.registry)
