"""Prometheus metrics of one process."""

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.engine import Span

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics, in a registry of their own so that several services fit in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "loss_scoring_requests",
            "Requests answered.",
            ("route", "format", "status"),
            registry=self.registry,
        )
        self._stage = Histogram(
            "loss_scoring_stage_seconds",
            "Seconds of one stage of a request.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_elements = Histogram(
            "loss_scoring_batch_elements",
            "Elements in one device batch.",
            buckets=[4**n for n in range(13)],
            registry=self.registry,
        )
        self._batch_requests = Histogram(
            "loss_scoring_batch_requests",
            "Requests in one device batch.",
            buckets=[2**n for n in range(9)],
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "loss_scoring_batch_seconds",
            "Seconds of one device batch.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queued = Gauge(
            "loss_scoring_queued_elements",
            "Elements waiting for the device.",
            registry=self.registry,
        )

    def watch_queue(self, queued_elements: Callable[[], int]) -> None:
        """Read the length of the queue from here at every scrape."""
        self._queued.set_function(queued_elements)

    def observe(self, route: str, format_: str, status: int, stages: Mapping[str, float]) -> None:
        """Count one answered request."""
        self._requests.labels(route, format_, str(status)).inc()
        for name, seconds in stages.items():
            self._stage.labels(name).observe(seconds)

    def observe_batch(self, spans: Sequence[Span], seconds: float) -> None:
        """Count one device batch."""
        self._batch_elements.observe(sum(span.elements for span in spans))
        self._batch_requests.observe(len(spans))
        self._batch_seconds.observe(seconds)

    def render(self) -> bytes:
        """Return the Prometheus text exposition."""
        return generate_latest(self.registry)
