"""Prometheus metrics, of one process or of all that share a directory.

To count in prometheus_client costs a microsecond or more, and a request counts twenty times. Here
observations are put aside, which costs a tenth of that, and counted together: when there are 256,
when metrics are scraped, and where processes share a directory every quarter of a second, so that
the process that is scraped shows all. A process that is killed takes at most so much with it.
"""

import asyncio
import logging
import os
import threading
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from loss_scoring.core import LOSSES
from loss_scoring.service.errors import known_reasons
from loss_scoring.service.telemetry.multiprocess import (
    RESTARTS,
    ROLES,
    BulkHistogram,
    CountingFiles,
)

log = logging.getLogger(__name__)

STAGES = ("decode", "queue", "compute", "encode")
PREFIX = "loss_scoring_"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COUNTED_TOGETHER = 256
_SHARED_EVERY_S = 0.25
_AFTER_FAILURE_S = 10
_CUT_OFF = ("slow-reader", "slow-body", "lingering", "idle", "half-answered")
_MEMORY_STATES = ("allocated", "reserved", "free", "total")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
T = TypeVar("T")

disable_created_metrics()  # type: ignore[no-untyped-call]  # undefined over several processes


class ScoredCounts(NamedTuple):
    """What a request was scored for.

    Attributes:
        losses: Their names.
        series: How many.
        elements: How many.
        masked: Elements without a finite quotient, by loss.
    """

    losses: tuple[str, ...]
    series: int
    elements: int
    masked: Mapping[str, int]


class RequestOutcome(NamedTuple):
    """A request that was answered, or whose client left.

    Attributes:
        route: The route's path; a client's path would be unbounded.
        format: ``json``, ``arrow``, ``tensors`` or ``none``.
        status: Of the answer; 499 if there was none.
        seconds: From the complete head to the end of the answer.
        stages: Seconds by stage.
        reason: Why it was refused.
        scored: What it was scored for.
    """

    route: str
    format: str
    status: int
    seconds: float = 0.0
    stages: Mapping[str, float] = {}
    reason: str | None = None
    scored: ScoredCounts | None = None


class _Deferred(Generic[T]):
    """Observations that are counted together later; any thread may add one."""

    def __init__(self, count: Callable[[Sequence[T]], None], lock: threading.RLock) -> None:
        self._observations: deque[T] = deque()
        self._count = count
        self._lock = lock

    def add(self, observation: T) -> None:
        self._observations.append(observation)
        if len(self._observations) >= _COUNTED_TOGETHER:
            self.count()

    def count(self) -> None:
        waiting = self._observations
        with self._lock:
            if waiting:
                self._count([waiting.popleft() for _ in range(len(waiting))])


class _Families:
    """Makes metrics by the service's rules: one prefix, one registry, sums over processes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, help_, labels, registry=self.registry)

    def gauge(
        self, name: str, help_: str, *labels: str, mode: Literal["livesum", "livemax"] = "livesum"
    ) -> Gauge:
        """Return a gauge; of several running processes the sum is shown, or the largest."""
        return Gauge(PREFIX + name, help_, labels, registry=self.registry, multiprocess_mode=mode)

    def histogram(
        self, name: str, help_: str, buckets: Sequence[float], *labels: str
    ) -> BulkHistogram:
        bounds = tuple(map(float, buckets))
        return BulkHistogram(PREFIX + name, help_, labels, buckets=bounds, registry=self.registry)


class _Requests:
    """Counts answered requests; labels that are known have a count of 0 from the beginning."""

    def __init__(self, make: _Families) -> None:
        self._requests = make.counter(
            "requests",
            "Requests answered, refused or left by their client (status 499).",
            *("route", "format", "status"),
        )
        self._refusals = make.counter(
            "refusals",
            "Requests refused, by reason; heads that were too slow or too large as well.",
            "reason",
        )
        self._seconds = make.histogram(
            "request_seconds",
            "Seconds from a scoring request's head to the end of its answer.",
            *(_SECONDS, "format"),
        )
        self._stages = make.histogram(
            "stage_seconds", "Seconds of one stage of a scoring request.", _SECONDS, "stage"
        )
        self._series = make.counter("scored_series", "Series scored, by loss.", "loss")
        self._elements = make.counter("scored_elements", "Elements scored, by loss.", "loss")
        self._masked = make.counter(
            "masked_elements", "Elements scored without a finite quotient, by loss.", "loss"
        )
        for reason in known_reasons():
            self._refusals.labels(reason)
        for format_ in ("json", "arrow", "tensors"):
            for status in (200, 429, 500, 503, 504):  # so that `rate` sees the first of each
                self._requests.labels("/score", format_, status)
            self._seconds.labels(format_)
        for stage in STAGES:
            self._stages.labels(stage)
        for loss in LOSSES.values():
            self._series.labels(loss.name)
            self._elements.labels(loss.name)
            if loss.can_be_masked:
                self._masked.labels(loss.name)

    def count(self, answered: Sequence[RequestOutcome]) -> None:
        for labels, count in Tally([request[:3] for request in answered]).items():
            self._requests.labels(*labels).inc(count)
        reasons = Tally([request.reason for request in answered if request.reason])
        for reason, count in reasons.items():
            self._refusals.labels(reason).inc(count)
        seconds = defaultdict(list)
        stages = defaultdict(list)
        for request in answered:
            if request.route == "/score":
                seconds[request.format].append(request.seconds)
            for stage, amount in request.stages.items():
                stages[stage].append(amount)
        for histogram, observed in ((self._seconds, seconds), (self._stages, stages)):
            for label, amounts in observed.items():
                histogram.labels(label).observe_all(amounts)
        self._count_scored([request.scored for request in answered if request.scored is not None])

    def _count_scored(self, scored: Sequence[ScoredCounts]) -> None:
        masked: Tally[str] = Tally()
        sizes: dict[tuple[str, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
        for request in scored:
            series, elements = sizes[request.losses]
            sizes[request.losses] = series + request.series, elements + request.elements
            masked.update(request.masked)
        for losses, (series, elements) in sizes.items():
            for loss in losses:
                self._series.labels(loss).inc(series)
                self._elements.labels(loss).inc(elements)
        for loss, count in masked.items():
            self._masked.labels(loss).inc(count)


class Metrics:
    """The metrics, in a registry of their own so that several services fit in one process.

    Args:
        files: Where this one of several processes counts, as ``count_as`` returns it; None for a
            process that is alone.
        role: What kind of process this is, ``frontend`` or ``worker``.

    Attributes:
        observe: Counts an answered request.
        observe_batch: Counts the slices, elements and seconds of a device batch.
    """

    def __init__(self, files: CountingFiles | None = None, role: str = "frontend") -> None:
        self._files = files
        self._counting = threading.RLock()
        self._restored = False
        make = _Families()
        self._registry = make.registry
        self._batches = (
            make.histogram(
                "batch_requests", "Requests in one device batch.", [2**n for n in range(9)]
            ),
            make.histogram(
                "batch_elements", "Elements in one device batch.", [4**n for n in range(13)]
            ),
            make.histogram("batch_seconds", "Seconds of one device batch.", _SECONDS),
        )
        requests = _Deferred(_Requests(make).count, self._counting)
        batches = _Deferred(self._count_batches, self._counting)
        self.observe = requests.add
        self.observe_batch = batches.add
        self._deferred = requests, batches
        self._connections = make.counter("connections", "Connections accepted.")
        self._cut_off = make.counter(
            "connections_cut_off", "Connections that the server ended, by reason.", "reason"
        )
        for reason in _CUT_OFF:
            self._cut_off.labels(reason)
        self._exhausted = make.counter(
            "device_exhausted", "How often the device ran out of memory."
        )
        restarts = Counter(*RESTARTS, registry=make.registry)
        self._gauges = _gauges(make)
        for label in ROLES:
            restarts.labels(label)
            self._gauges["resident_memory_bytes"].labels(label)
            self._gauges["processes"].labels(label).set(label == role)
        for state in _MEMORY_STATES:
            self._gauges["device_memory_bytes"].labels(state)
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        self._exhaustions: Callable[[], int] = lambda: 0
        self._counted_exhaustions = 0
        self._open_connections = 0
        self.watch("open_connections", lambda: self._open_connections)
        self.watch("resident_memory_bytes", _resident_bytes, role)

    @property
    def shared(self) -> bool:
        """Whether other processes count in the same directory."""
        return self._files is not None

    def watch(self, gauge: str, read: Callable[[], float], *labels: str) -> None:
        """Set a gauge to what ``read`` returns whenever metrics are published."""
        family = self._gauges[gauge]
        self._watched.append((family.labels(*labels) if labels else family, read))

    def watch_device(
        self, memory: Callable[[], Mapping[str, int]], exhaustions: Callable[[], int]
    ) -> None:
        """Read the memory of a device by state, and how often it has run out."""
        for state in _MEMORY_STATES:
            self.watch("device_memory_bytes", lambda state=state: memory().get(state, 0), state)  # type: ignore[misc]
        self._exhaustions = exhaustions

    def opened(self) -> None:
        """Count a connection."""
        self._open_connections += 1
        self._connections.inc()

    def closed(self) -> None:
        """Count a connection that has ended."""
        self._open_connections -= 1

    def cut_off(self, reason: str) -> None:
        """Count a connection that the server ends of its own accord."""
        self._cut_off.labels(reason).inc()

    def refused(self, status: int, reason: str) -> None:
        """Count a request that was refused before it was one, such as half a head."""
        self.observe(RequestOutcome("none", "none", status, reason=reason))

    def _count_batches(self, batches: Sequence[tuple[int, int, float]]) -> None:
        for histogram, column in zip(self._batches, zip(*batches, strict=True), strict=True):
            histogram.observe_all(column)

    def publish(self) -> None:
        """Count what was put aside and read what is watched."""
        with self._counting:
            self._restored = self._files is not None and self._files.restore()
            for deferred in self._deferred:
                deferred.count()
            for gauge, read in self._watched:
                gauge.set(read())
            exhaustions = self._exhaustions()
            self._exhausted.inc(exhaustions - self._counted_exhaustions)
            self._counted_exhaustions = exhaustions

    async def keep_published(self) -> None:
        """Publish until cancelled, where another process may be scraped."""
        while self.shared:
            try:
                self.publish()
            except Exception:
                log.exception("metrics cannot be published")
                await asyncio.sleep(_AFTER_FAILURE_S)
            await asyncio.sleep(_SHARED_EVERY_S)

    def render(self) -> bytes:
        """Return the Prometheus text exposition."""
        self.publish()
        if self._files is not None and self._restored:
            all_processes = CollectorRegistry()
            try:
                MultiProcessCollector(all_processes, str(self._files.directory))  # type: ignore[no-untyped-call]
                return generate_latest(all_processes)
            except Exception:
                log.exception("the metrics of other processes cannot be read")
        with self._counting:
            return generate_latest(self._registry)


def _gauges(make: _Families) -> dict[str, Gauge]:
    """Return the gauges by name without their prefix."""
    rows = (
        ("processes", "Processes that run, by role.", "role"),
        ("resident_memory_bytes", "Resident memory of processes, by role.", "role"),
        ("ready_processes", "Front ends that answer /readyz with 200."),
        ("open_connections", "Connections that are open."),
        ("queued_elements", "Elements unanswered or on the device."),
        ("queued_elements_limit", "Most elements unanswered or on the device; more are refused."),
        ("open_bytes", "Bytes that open requests hold."),
        ("open_bytes_limit", "Most bytes that open requests may hold; more are refused."),
        ("pooled_bytes", "Memory kept to be used again, by pool.", "pool"),
        ("device_memory_bytes", "Memory of the CUDA device, by state; 0 on a CPU.", "state"),
    )
    build = "build_info", "Always 1; its labels say what runs.", "version", "torch", "device"
    gauges = {name: make.gauge(name, *texts) for name, *texts in rows}
    return {**gauges, "build_info": make.gauge(*build, mode="livemax")}


def _resident_bytes() -> float:
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
