"""Prometheus metrics of one process.

prometheus_client's own histograms cost 2 microseconds an observation, and a request makes several;
``_Histogram`` costs a tenth and is rendered by the library all the same.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.engine import Span

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _Histogram(Collector):
    """Counts observations in buckets, by the value of at most one label."""

    def __init__(
        self, name: str, help_: str, buckets: Sequence[float], label: str | None = None
    ) -> None:
        self._name, self._help, self._buckets = name, help_, tuple(buckets)
        self._labels = () if label is None else (label,)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()
        if label is None:
            self._add("")

    def _add(self, value: str) -> None:
        self._counts[value] = [0] * (len(self._buckets) + 1)
        self._sums[value] = 0.0

    def observe(self, amount: float, value: str = "") -> None:
        with self._lock:
            if value not in self._counts:
                self._add(value)
            self._counts[value][bisect_left(self._buckets, amount)] += 1
            self._sums[value] += amount

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        with self._lock:
            for value, counts in self._counts.items():
                cumulated = list(zip(bounds, accumulate(counts), strict=True))
                family.add_metric([value] if self._labels else [], cumulated, self._sums[value])
        yield family


class Metrics:
    """The metrics, in a registry of their own so that several services fit in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        requests = Counter(
            "loss_scoring_requests",
            "Requests answered.",
            ("route", "format", "status"),
            registry=self.registry,
        )
        # A label's lookup costs as much as the count.
        self._requests: Callable[[str, str, int], Counter] = cache(
            lambda route, format_, status: requests.labels(route, format_, str(status))
        )
        self._stage = self._histogram(
            "stage_seconds", "Seconds of one stage of a request.", _SECONDS, "stage"
        )
        self._batch_elements = self._histogram(
            "batch_elements", "Elements in one device batch.", [4**n for n in range(13)]
        )
        self._batch_requests = self._histogram(
            "batch_requests", "Requests in one device batch.", [2**n for n in range(9)]
        )
        self._batch_seconds = self._histogram(
            "batch_seconds", "Seconds of one device batch.", _SECONDS
        )
        self._queued = Gauge(
            "loss_scoring_queued_elements",
            "Elements waiting for the device.",
            registry=self.registry,
        )

    def _histogram(
        self, name: str, help_: str, buckets: Sequence[float], label: str | None = None
    ) -> _Histogram:
        made = _Histogram(f"loss_scoring_{name}", help_, buckets, label)
        self.registry.register(made)
        return made

    def watch_queue(self, queued_elements: Callable[[], int]) -> None:
        """Read the length of the queue from here at every scrape."""
        self._queued.set_function(queued_elements)

    def observe(self, route: str, format_: str, status: int, stages: Mapping[str, float]) -> None:
        """Count one answered request."""
        self._requests(route, format_, status).inc()
        for name, seconds in stages.items():
            self._stage.observe(seconds, name)

    def observe_batch(self, spans: Sequence[Span], seconds: float) -> None:
        """Count one device batch."""
        self._batch_elements.observe(sum(span.elements for span in spans))
        self._batch_requests.observe(len(spans))
        self._batch_seconds.observe(seconds)

    def render(self) -> bytes:
        """Return the Prometheus text exposition."""
        return generate_latest(self.registry)
