"""What is read of a process whenever somebody asks: gauges, and totals that others keep."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import Counter, Gauge

from loss_scoring.service.telemetry.families import Families
from loss_scoring.service.telemetry.shared import RESTARTS, ROLES

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
_STATES = ("allocated", "reserved", "free", "total")


class ProcessMetrics:
    """The gauges of one process.

    Args:
        families: Makes them.
        role: What kind of process this is, ``frontend`` or ``worker``.
    """

    def __init__(self, families: Families, role: str) -> None:
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        self._memories: list[Callable[[], Mapping[str, int]]] = []
        self._totals: list[tuple[Counter, Callable[[], float], list[float]]] = []
        gauge = families.gauge
        running = gauge("processes", "Processes that run, by role.", "role")
        resident = gauge("resident_memory_bytes", "Resident memory of processes, by role.", "role")
        restarts = Counter(*RESTARTS, registry=families.registry)
        for one in ROLES:
            running.labels(one).set(one == role)
            resident.labels(one)
            restarts.labels(one)
        self._gauges.append((resident.labels(role), _resident_bytes))
        self._ready = gauge("ready_processes", "Front ends that answer /readyz with 200.")
        self._queued = gauge("queued_elements", "Elements unanswered or on the device.")
        self._queue_limit = gauge(
            "queued_elements_limit", "Elements that may be; beyond them requests are refused."
        )
        self._open = gauge("open_bytes", "Bytes that open requests hold.")
        self._open_limit = gauge(
            "open_bytes_limit", "Bytes that they may hold; beyond them requests are refused."
        )
        self._pooled = gauge("pooled_bytes", "Memory kept to be used again, by pool.", "pool")
        self._device = gauge(
            "device_memory_bytes", "Memory of the CUDA device, by state; 0 on a CPU.", "state"
        )
        for state in _STATES:
            self._device.labels(state)
        self._build = families.gauge(
            "build_info",
            "Always 1; its labels say what runs.",
            *("version", "torch", "device"),
            mode="livemax",
        )
        self._exhausted = families.counter(
            "device_exhausted", "How often the device ran out of memory."
        )

    def describe_build(self, version: str, torch: str, device: str) -> None:
        """Say what runs: the version of the service, that of torch, and the device."""
        self._build.labels(version, torch, device).set(1)

    def watch_queue(self, queued_elements: Callable[[], int], limit: int) -> None:
        """Read the length of the queue from here."""
        self._gauges.append((self._queued, queued_elements))
        self._queue_limit.set(limit)

    def watch_room(self, held_bytes: Callable[[], int], limit: int) -> None:
        """Read from here what open requests hold."""
        self._gauges.append((self._open, held_bytes))
        self._open_limit.set(limit)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """Read from here whether requests are taken."""
        self._gauges.append((self._ready, ready))

    def watch_pool(self, name: str, retained_bytes: Callable[[], int]) -> None:
        """Read from here how much memory a pool keeps."""
        self._gauges.append((self._pooled.labels(name), retained_bytes))

    def watch_device(
        self, memory: Callable[[], Mapping[str, int]], exhausted: Callable[[], int]
    ) -> None:
        """Read from here how much memory a device has, and how often it had too little."""
        self._memories.append(memory)
        self._totals.append((self._exhausted, exhausted, [0]))

    def watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Read any gauge from here."""
        self._gauges.append((gauge, read))

    def publish(self) -> None:
        """Read everything."""
        for gauge, read in self._gauges:
            gauge.set(read())
        for memory in self._memories:
            for state, size in memory().items():
                self._device.labels(state).set(size)
        for counter, read, seen in self._totals:
            now = read()
            counter.inc(now - seen[0])
            seen[0] = now


def _resident_bytes() -> float:
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
