"""What depends on the internals of prometheus_client: bulk observation, metrics of all processes.

Tested with prometheus_client 0.26. Used here and nowhere else:

    Histogram._buckets, ._sum, ._upper_bounds       BulkHistogram
    values.ValueClass, .MutexValue, .MultiProcessValue      count_as
    the names of a process's files, KIND_PROCESS.db         count_as

In the library's multiprocess mode each process counts in files of its own, and the process that is
scraped adds up the files of all. The library names files by process id, so every restart would
leave some behind, to be read at each scrape for ever. Here they are named by role and slot: a
process continues the files of the one that it replaces. So counters never go backwards and files do
not pile up.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Histogram, multiprocess, values

log = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
RESTARTS = (
    "loss_scoring_restarts",
    "Processes that ended and were replaced, by role: worker or frontend.",
    ("role",),
)
ROLES = ("frontend", "worker")
_PREFIX = "loss-scoring-metrics-"
_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax")
_FILE_BYTES = 1 << 16
_YOUNG_S = 60
"""A directory so new may not be locked yet."""


class BulkHistogram(Histogram):
    """A histogram that counts many observations at once.

    One observation costs 2 microseconds, in files that several processes share 4, and a request
    makes eight. Counted a hundred at a time they cost a tenth.
    """

    _buckets: list[Any]
    _sum: Any

    def observe_all(self, amounts: Sequence[float]) -> None:
        bounds = self._upper_bounds
        for bucket, count in Tally([bisect_left(bounds, amount) for amount in amounts]).items():
            self._buckets[bucket].inc(count)
        self._sum.inc(sum(amounts))


def count_as(role: str, slot: int = 0) -> Path | None:
    """Count in the files of a slot from now on; call it before the first metric is made.

    Returns:
        The directory of the files; None if no supervisor made one, or it is full: then this
        process counts in memory.
    """
    directory = os.environ.get(VARIABLE)
    if directory is None:
        return None
    library: Any = values
    process = f"{role}-{slot}"
    try:
        for kind in _KINDS:
            _allocate(Path(directory, f"{kind}_{process}.db"))
    except OSError as error:
        log.warning("this process has metrics of its own: %s", error)
        library.ValueClass = library.MutexValue
        return None
    library.ValueClass = library.MultiProcessValue(lambda: process)
    return Path(directory)


def forget_gauges(role: str, slot: int = 0) -> None:
    """Remove the gauges of a process that has ended; for its parent, before it starts another."""
    if directory := os.environ.get(VARIABLE):
        multiprocess.mark_process_dead(f"{role}-{slot}", directory)  # type: ignore[no-untyped-call]


def _allocate(path: Path) -> None:
    """Make a file that the library finds large enough.

    It would make one with a hole, and where the file system is full a process that writes into a
    hole of a mapped file is killed.
    """
    with path.open("ab") as file:
        if file.tell() == 0:
            os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)


def _lock(directory: Path) -> int | None:
    """Return a descriptor that locks a directory while open, None if another process has one."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


class MetricsDirectory:
    """The directory of the files, made by the supervisor, which counts restarts in it.

    Where no directory can be made, each front end answers for itself.
    """

    def __init__(self) -> None:
        os.environ.pop(VARIABLE, None)
        self._path: Path | None = None
        try:
            self._remove_old()
            self._path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            _lock(self._path)  # until this process ends, by whatever
        except OSError as error:
            log.warning("each front end has metrics of its own: %s", error)
            return
        os.environ[VARIABLE] = str(self._path)
        if count_as("supervisor") is None:
            self.close()
            return
        self._restarts = Counter(*RESTARTS, registry=None)
        for role in ROLES:
            self._restarts.labels(role)

    @staticmethod
    def _remove_old() -> None:
        """Remove what supervisors left behind that were killed."""
        for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with suppress(OSError):
                if time.time() - old.stat().st_mtime < _YOUNG_S:
                    continue
                lock = _lock(old)
                if lock is not None:
                    shutil.rmtree(old)
                    os.close(lock)

    def count_restart(self, role: str) -> None:
        if self._path is not None:
            self._restarts.labels(role).inc()

    def close(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            os.environ.pop(VARIABLE, None)
            self._path = None
