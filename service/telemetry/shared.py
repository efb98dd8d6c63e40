"""Metrics of several processes, in files of one directory.

This is prometheus_client's multiprocess mode: whoever counts does so in files of its own, which
whoever is asked adds up. The library names the files by process id, so that every restart would
leave some more behind, to be read at each scrape for ever. Here they are named by seats: a process
takes a free seat of its role, goes on where the one before it there had come to, and leaves it,
however it ends, by letting go of a lock. So counters never go backwards and files do not pile up.
"""

import fcntl
import itertools
import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import Counter, multiprocess, values

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


def take_seat(role: str) -> Path | None:
    """Count in files of a role from now on; call it before the first metric is made.

    Returns:
        The directory of the files; None if no supervisor made one, or it is full, and all is
        counted in memory.
    """
    where = os.environ.get(VARIABLE)
    if where is None:
        return None
    library: Any = values
    seats = (f"{role}-{number}" for number in itertools.count())
    try:
        mine = next(seat for seat in seats if _lock(Path(where, f"{seat}.seat")) is not None)
        for kind in _KINDS:
            _reserve(Path(where, f"{kind}_{mine}.db"))
    except OSError as error:
        log.warning("this process has metrics of its own: %s", error)
        library.ValueClass = library.MutexValue
        return None
    library.ValueClass = library.MultiProcessValue(lambda: mine)
    return Path(where)


def _reserve(path: Path) -> None:
    """Make a file that the library finds large enough.

    It would make one with a hole, and where the file system is full a process that writes into a
    hole of a mapped file is killed.
    """
    with path.open("ab") as file:
        if file.tell() == 0:
            os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds a file's lock while open, None if another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


class SharedMetrics:
    """The directory, as the supervisor keeps it; it has a seat there itself.

    Where no directory can be made, each front end answers for itself.
    """

    def __init__(self) -> None:
        os.environ.pop(VARIABLE, None)
        self._directory: Path | None = None
        try:
            self._remove_old()
            self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except OSError as error:
            log.warning("each front end has metrics of its own: %s", error)
            return
        os.environ[VARIABLE] = str(self._directory)
        if take_seat("supervisor") is None:
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
                free = _lock(old / "supervisor-0.seat")
                if free is not None:
                    shutil.rmtree(old)
                    os.close(free)

    def ended(self, role: str) -> None:
        """Count a process that ended, and forget the gauges of whoever has."""
        if self._directory is None:
            return
        self._restarts.labels(role).inc()
        library: Any = multiprocess
        for seat in self._directory.glob(f"{role}-*.seat"):
            try:
                free = _lock(seat)
            except OSError as error:  # then until somebody else ends
                log.warning("gauges of a process that ended stay: %s", error)
                return
            if free is not None:
                library.mark_process_dead(seat.stem, str(self._directory))
                os.close(free)

    def close(self) -> None:
        """Remove the directory."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            os.environ.pop(VARIABLE, None)
            self._directory = None
