"""Memory that two processes share, without a name and without a copy.

A segment is a memfd: nothing is left of it when the last process that holds it has died, however
it died, and the size of /dev/shm does not matter. It is sealed against shrinking, since reading
what another process has cut off kills.

The side that makes segments hands their memory out as blocks for ``BufferPool`` and finds out
later, by its address, where a tensor lies. A segment goes when nothing refers to its memory.
"""

import fcntl
import itertools
import logging
import mmap
import os
import threading
import weakref
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

log = logging.getLogger(__name__)

_SLAB = 1 << 24
_CARVED = 1 << 20
"""Blocks up to this size are cut from slabs: each segment costs two descriptors."""


class Place(NamedTuple):
    """Where something lies: in which segment, from which byte."""

    segment: int
    start: int


class Segment(NamedTuple):
    """Memory to share.

    Attributes:
        number: Never used again.
        address: Where it lies in this process.
        size: In bytes.
        descriptor: The memfd; open for as long as ``mapping`` lives.
        mapping: Refers to the memory.
    """

    number: int
    address: int
    size: int
    descriptor: int
    mapping: "weakref.ref[mmap.mmap]"


class SharedMemory:
    """Makes segments."""

    def __init__(self) -> None:
        self.segments: dict[int, Segment] = {}
        self.dropped: deque[int] = deque()
        """Numbers of segments that have gone; who told the other side takes them out."""
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._slab = memoryview(b"")

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """Make a block; of ordinary memory if there is no other."""
        try:
            if size > _CARVED:
                return np.frombuffer(self._map(size), np.uint8)
            with self._lock:
                if len(self._slab) < size:
                    self._slab = memoryview(self._map(_SLAB))
                block, self._slab = self._slab[:size], self._slab[size:]
        except OSError as error:
            log.warning("no shared memory of %d bytes: %s", size, error)
            return np.empty(size, np.uint8)
        # Of a memoryview: of an array, the slices of the block would refer to the slab instead.
        return np.frombuffer(block, np.uint8)

    def find(self, address: int, size: int) -> Place | None:
        """Return where some bytes lie, None if they are not in a segment."""
        for number, start, length, *_ in tuple(self.segments.values()):
            if start <= address and address + size <= start + length:
                return Place(number, address - start)
        return None

    def _map(self, size: int) -> mmap.mmap:
        descriptor = os.memfd_create("loss-scoring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            mapping = mmap.mmap(descriptor, size)
        except OSError:
            os.close(descriptor)
            raise
        address = np.frombuffer(mapping, np.uint8).ctypes.data
        number = next(self._numbers)
        self.segments[number] = Segment(number, address, size, descriptor, weakref.ref(mapping))
        weakref.finalize(mapping, self._drop, number, descriptor).atexit = False
        return mapping

    def _drop(self, number: int, descriptor: int) -> None:
        """Forget a segment. It may be called anywhere, by any thread, so it takes no lock."""
        del self.segments[number]
        os.close(descriptor)
        self.dropped.append(number)


class Mappings:
    """Segments of another process; believes nothing it is told about them."""

    def __init__(self) -> None:
        self._mappings: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        """Return how many segments are mapped."""
        return len(self._mappings)

    def add(self, number: int, descriptor: int) -> None:
        """Map a segment and close the descriptor.

        Raises:
            ValueError: If it could shrink.
            OSError: If it cannot be mapped.
        """
        try:
            if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise ValueError(f"segment {number} is not sealed")
            self._mappings[number] = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)

    def drop(self, number: int) -> None:
        """Forget a segment; it is unmapped once no view of it is left."""
        self._mappings.pop(number, None)

    def view(self, place: Place, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in a segment.

        Raises:
            ValueError: If there is no such place.
        """
        number, start = place
        mapping = self._mappings.get(number)
        if mapping is None:
            raise ValueError(f"there is no segment {number}")
        if start < 0 or length < 0 or start + length * np.dtype(dtype).itemsize > len(mapping):
            raise ValueError(f"{length} elements from byte {start} are not in segment {number}")
        return np.frombuffer(memoryview(mapping)[start:], dtype, length)
