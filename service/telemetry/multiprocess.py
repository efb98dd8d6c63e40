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
import stat
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


class _Process(str):
    """The name of a process in those of its files; not equal to itself once they are others.

    The library maps its files again when the name of the process has changed, as after a fork.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class CountingFiles:
    """The files in which this process counts, in a directory that only its user can enter.

    Args:
        directory: Made by the supervisor.
        process: Role and slot.
    """

    def __init__(self, directory: Path, process: str) -> None:
        self.directory = directory
        self.process = _Process(process)
        self._there = True
        check_own(directory)
        self._descriptors = [_open(path) for path in self._paths]
        for descriptor in self._descriptors:
            if not os.fstat(descriptor).st_size:
                os.posix_fallocate(descriptor, 0, _FILE_BYTES)

    @property
    def _paths(self) -> list[Path]:
        return [self.directory / f"{kind}_{self.process}.db" for kind in _KINDS]

    def restore(self) -> bool:
        """Make directory and files again if someone has removed them; tell whether they are there.

        What was counted is in the removed files, as long as they are open.
        """
        try:
            with suppress(FileExistsError):
                self.directory.mkdir(0o700)
            check_own(self.directory)
            for n, path in enumerate(self._paths):
                if not _is_at(path, self._descriptors[n]):
                    self._restore(n, path)
        except OSError as error:
            if self._there:
                log.warning("metrics of other processes are missing: %s", error)
            self._there = False
        else:
            self._there = True
        return self._there

    def _restore(self, n: int, path: Path) -> None:
        removed, descriptor = self._descriptors[n], _open(path)
        size = os.fstat(removed).st_size
        os.posix_fallocate(descriptor, 0, size)
        os.pwrite(descriptor, os.pread(removed, size, 0), 0)
        self._descriptors[n] = descriptor
        self.process = _Process(self.process)
        os.close(removed)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def check_own(directory: Path) -> None:
    """Raise ``OSError`` unless it is a directory, and no link, that only this user can enter."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} is not a directory of this user alone")


def count_as(role: str, slot: int = 0) -> CountingFiles | None:
    """Count in the files of a slot from now on; call it before the first metric is made.

    Returns:
        The files; None if no supervisor made a directory, or it is full: then this process counts
        in memory.
    """
    directory = os.environ.get(VARIABLE)
    if directory is None:
        return None
    library: Any = values
    try:
        files = CountingFiles(Path(directory), f"{role}-{slot}")
    except OSError as error:
        log.warning("this process has metrics of its own: %s", error)
        library.ValueClass = library.MutexValue
        return None
    library.ValueClass = library.MultiProcessValue(lambda: files.process)
    return files


def forget_gauges(role: str, slot: int = 0) -> None:
    """Remove the gauges of a process that has ended; for its parent, before it starts another."""
    if directory := os.environ.get(VARIABLE):
        multiprocess.mark_process_dead(f"{role}-{slot}", directory)  # type: ignore[no-untyped-call]


def _lock(directory: Path) -> int | None:
    """Return a descriptor that locks a directory while open, None if another process has one."""
    descriptor = os.open(directory, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(directory: Path) -> None:
    """Remove a directory of such files; not what else is in it, and then not the directory."""
    for path in directory.glob("*.db"):
        path.unlink()
    directory.rmdir()


class MetricsDirectory:
    """The directory of the files, made by the supervisor, which counts restarts in it.

    Where no directory can be made, each front end answers for itself.
    """

    def __init__(self) -> None:
        os.environ.pop(VARIABLE, None)
        self._path: Path | None = None
        self._files: CountingFiles | None = None
        self._locked: int | None = None
        try:
            self._remove_old()
            self._path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._locked = _lock(self._path)  # until this process ends, by whatever
        except OSError as error:
            log.warning("each front end has metrics of its own: %s", error)
            return
        os.environ[VARIABLE] = str(self._path)
        self._files = count_as("supervisor")
        if self._files is None:
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
                if time.time() - old.lstat().st_mtime < _YOUNG_S:
                    continue
                check_own(old)
                lock = _lock(old)
                if lock is not None:
                    try:
                        _remove(old)
                    finally:
                        os.close(lock)

    def restore(self) -> None:
        """Make the directory again if someone has removed it."""
        if self._path is None or self._files is None or not self._files.restore():
            return
        if self._locked is None or not _is_at(self._path, self._locked):
            if self._locked is not None:
                os.close(self._locked)
            self._locked = _lock(self._path)

    def count_restart(self, role: str) -> None:
        if self._path is not None:
            self._restarts.labels(role).inc()

    def close(self) -> None:
        if self._path is not None:
            with suppress(OSError):
                _remove(self._path)
            os.environ.pop(VARIABLE, None)
            self._path = None
