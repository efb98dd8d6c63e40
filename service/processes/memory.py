"""Memory that a front end shares with the worker, without a name and without a copy.

An arena is a memfd: nothing is left of it when the last process that maps it has died, however it
died, and the size of /dev/shm does not matter. It is sealed against shrinking, since reading what
another process has cut off kills. Its size is that of an address range; only pages that are written
take memory, and blocks that are released give theirs back to the system.

The front end hands blocks out to its pools and finds out later, by its address, where a tensor
lies. A block is released when nothing refers to its memory.
"""

import fcntl
import logging
import mmap
import os
import threading
import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

log = logging.getLogger(__name__)

_ADDRESSES = 1 << 36
"""Bytes; more than any host's memory budget, so that fragments never matter."""


class Arena:
    """One range of shared memory, from which blocks are taken.

    Attributes:
        descriptor: The memfd, for the worker.
    """

    def __init__(self, size: int = _ADDRESSES) -> None:
        self.descriptor = os.memfd_create("loss-scoring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        self._mapping = mmap.mmap(self.descriptor, size)
        self._address = np.frombuffer(self._mapping, np.uint8, 1).ctypes.data
        self._size = size
        self._lock = threading.Lock()
        self._free = [(0, size)]
        self._released: deque[tuple[int, int]] = deque()

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """Make a block; of ordinary memory if no range is free."""
        length = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        with self._lock:
            start = self._take(length)
        if start is None:
            log.warning("no shared memory of %d bytes", size)
            return np.empty(size, np.uint8)
        # Of a memoryview, so that this array is the one that all slices of the block refer to.
        block = np.frombuffer(memoryview(self._mapping)[start : start + size], np.uint8)
        weakref.finalize(block, self._release, start, length).atexit = False
        return block

    def offset(self, address: int, size: int) -> int | None:
        """Return where in the arena some bytes lie, None if they do not."""
        start = address - self._address
        return start if 0 <= start <= self._size - size else None

    def _take(self, length: int) -> int | None:
        if self._released:
            spans = self._free + [self._released.popleft() for _ in range(len(self._released))]
            self._free = []
            for start, stop in sorted(spans):
                if self._free and self._free[-1][1] == start:
                    start = self._free.pop()[0]  # noqa: PLW2901 - joined to the one before
                self._free.append((start, stop))
        for i, (start, stop) in enumerate(self._free):
            if stop - start >= length:
                self._free[i] = start + length, stop
                return start
        return None

    def _release(self, start: int, length: int) -> None:
        """Give a block back. A finalizer: any thread may be anywhere, so it takes no lock."""
        with suppress(OSError):  # else the next owner of the range has its pages
            self._mapping.madvise(mmap.MADV_REMOVE, start, length)
        self._released.append((start, start + length))


class ForeignArena:
    """The arena of another process; trusts nothing that is said about it.

    Args:
        descriptor: Its memfd, which is closed.

    Raises:
        ValueError: If it could shrink.
        OSError: If it cannot be mapped.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise ValueError("the memory of a front end is not sealed")
            self._mapping = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)

    def view(self, start: int, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in the arena.

        Raises:
            ValueError: If it would not lie there.
        """
        size = length * np.dtype(dtype).itemsize
        if start < 0 or length < 0 or start + size > len(self._mapping):
            raise ValueError(f"{length} elements from byte {start} are not in the shared memory")
        return np.frombuffer(memoryview(self._mapping)[start:], dtype, length)
