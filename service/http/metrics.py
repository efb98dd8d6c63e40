"""Prometheus metrics of one process.

An observation in a histogram of prometheus_client costs 2 microseconds, and a request makes eight.
Here it is put aside, which costs a tenth of one, and counted together with others; the library
renders the counts all the same.
"""

import threading
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.engine import Span

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COUNTED_TOGETHER = 256


class _Histogram(Collector):
    """Counts observations in buckets, by the value of at most one label."""

    def __init__(
        self, name: str, help_: str, buckets: Sequence[float], label: str | None = None
    ) -> None:
        self._name, self._help, self._buckets = name, help_, tuple(buckets)
        self._labels = () if label is None else (label,)
        self._counts: dict[str, NDArray[np.int64]] = defaultdict(
            lambda: np.zeros(len(self._buckets) + 1, np.int64)
        )
        self._sums: dict[str, float] = defaultdict(float)
        if label is None:
            self.observe([])

    def observe(self, amounts: Sequence[float], value: str = "") -> None:
        where = np.searchsorted(self._buckets, amounts)
        self._counts[value] += np.bincount(where, minlength=len(self._buckets) + 1)
        self._sums[value] += sum(amounts)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        for value, counts in self._counts.items():
            cumulated = list(zip(bounds, accumulate(counts.tolist()), strict=True))
            family.add_metric([value] if self._labels else [], cumulated, self._sums[value])
        yield family


class Metrics:
    """The metrics, in a registry of their own so that several services fit in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answered: deque[tuple[tuple[str, str, int], Mapping[str, float]]] = deque()
        self._batches: deque[tuple[int, int, float]] = deque()
        self._counting = threading.RLock()
        self._requests = Counter(
            "loss_scoring_requests",
            "Requests answered.",
            ("route", "format", "status"),
            registry=self.registry,
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
        self._answered.append(((route, format_, status), stages))
        if len(self._answered) >= _COUNTED_TOGETHER:
            self._count()

    def observe_batch(self, spans: Sequence[Span], seconds: float) -> None:
        """Count one device batch."""
        self._batches.append((sum([span.elements for span in spans]), len(spans), seconds))
        if len(self._batches) >= _COUNTED_TOGETHER:
            self._count()

    def _count(self) -> None:
        """Count what was put aside; any thread may, while others put more aside."""
        with self._counting:
            answered = [self._answered.popleft() for _ in range(len(self._answered))]
            batches = [self._batches.popleft() for _ in range(len(self._batches))]
            for (route, format_, status), count in Tally(labels for labels, _ in answered).items():
                self._requests.labels(route, format_, str(status)).inc(count)
            seconds = defaultdict(list)
            for _, stages in answered:
                for name, amount in stages.items():
                    seconds[name].append(amount)
            for name, amounts in seconds.items():
                self._stage.observe(amounts, name)
            if batches:
                histograms = self._batch_elements, self._batch_requests, self._batch_seconds
                for histogram, column in zip(histograms, zip(*batches, strict=True), strict=True):
                    histogram.observe(column)

    def render(self) -> bytes:
        """Return the Prometheus text exposition."""
        with self._counting:
            self._count()
            return generate_latest(self.registry)
