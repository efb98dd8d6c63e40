"""Prometheus metrics, of one process or of all that share a directory.

To count in prometheus_client costs a microsecond or more, and a request counts twenty times. Here
what happened is put aside, which costs a tenth of one, and counted together with others: when 256
are there, when somebody asks, and where processes share a directory every quarter of a second, so
that whoever is asked tells of all. A process that is killed takes at most so much with it.
"""

import asyncio
import logging
import threading
from collections import deque
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from loss_scoring.service.telemetry.families import SECONDS, Families
from loss_scoring.service.telemetry.processes import ProcessMetrics
from loss_scoring.service.telemetry.requests import Answered, RequestMetrics

log = logging.getLogger(__name__)

_COUNTED_TOGETHER = 256
_SHARED_EVERY_S = 0.25
_AFTER_FAILURE_S = 10
_CUT_OFF = ("slow-reader", "slow-body", "lingering", "idle", "half-answered")


class Metrics:
    """The metrics, in a registry of their own so that several services fit in one process.

    Args:
        directory: Where several processes count, as ``take_seat`` returns it; None for one that
            is alone.
        role: What kind of process this is, ``frontend`` or ``worker``.

    Attributes:
        watched: What is read of the process.
    """

    def __init__(self, directory: Path | None = None, role: str = "frontend") -> None:
        self._directory = directory
        self._answered: deque[Answered] = deque()
        self._batches: deque[tuple[int, int, float]] = deque()
        self._counting = threading.RLock()
        families = Families()
        self._registry = families.registry
        self._requests = RequestMetrics(families)
        self._histograms = (
            families.histogram(
                "batch_elements", "Elements in one device batch.", [4**n for n in range(13)]
            ),
            families.histogram(
                "batch_requests", "Requests in one device batch.", [2**n for n in range(9)]
            ),
            families.histogram("batch_seconds", "Seconds of one device batch.", SECONDS),
        )
        self._connections = families.counter("connections", "Connections accepted.")
        self._cut_off = families.counter(
            "connections_cut_off", "Connections that the server ended, by reason.", "reason"
        )
        for reason in _CUT_OFF:
            self._cut_off.labels(reason)
        self._open_connections = 0
        self.watched = ProcessMetrics(families, role)
        self.watched.watch(
            families.gauge("open_connections", "Connections that are open."),
            lambda: self._open_connections,
        )

    @property
    def shared(self) -> bool:
        """Whether other processes count in the same directory."""
        return self._directory is not None

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
        self.observe(Answered("none", "none", status, reason=reason))

    def observe(self, answered: Answered) -> None:
        """Count one answered request."""
        self._answered.append(answered)
        if len(self._answered) >= _COUNTED_TOGETHER:
            self._count()

    def observe_batch(self, slices: int, elements: int, seconds: float) -> None:
        """Count one device batch."""
        self._batches.append((elements, slices, seconds))
        if len(self._batches) >= _COUNTED_TOGETHER:
            self._count()

    def _count(self) -> None:
        """Count what was put aside; any thread may, while others put more aside."""
        with self._counting:
            self._requests.count([self._answered.popleft() for _ in range(len(self._answered))])
            batches = [self._batches.popleft() for _ in range(len(self._batches))]
            if batches:
                columns = zip(*batches, strict=True)
                for histogram, column in zip(self._histograms, columns, strict=True):
                    histogram.observe_all(column)

    def publish(self) -> None:
        """Count what was put aside and read what is watched."""
        with self._counting:
            self._count()
            self.watched.publish()

    async def keep_published(self) -> None:
        """Publish until cancelled, where others may be asked for what happens here."""
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
        if self._directory is None:
            with self._counting:
                return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, str(self._directory))  # type: ignore[no-untyped-call]
        return generate_latest(everybody)
