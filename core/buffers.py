"""Large buffers that are used again, so that their pages are faulted in once.

A fresh array of some megabytes costs more in page faults than a kernel needs to fill it, and giving
it back to the operating system makes the next one fresh again. The pool keeps the memory instead.

A block is free when nobody but the pool refers to it: every view of it, be it a slice, a tensor, an
Arrow buffer or a memoryview on its way to a socket, holds a reference to the block itself. So there
is nothing to give back and nothing to forget. This needs exact reference counts, hence the GIL.
"""

import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SMALLEST = 1 << 18
"""Bytes below which the allocator itself keeps memory at hand."""


def _references(blocks: list[NDArray[np.uint8]]) -> int:
    """Count the references to the last block in a way that counts its own the same each time."""
    block = blocks[-1]
    return sys.getrefcount(block)


_FREE = _references([np.empty(1, np.uint8)])


class BufferPool:
    """Hands out uninitialised arrays.

    Args:
        retain_bytes: The most memory that is kept for later; larger arrays are made as usual.

    Example:
        >>> pool = BufferPool(1 << 24)
        >>> first = pool.empty(1_000_000, np.float64)
        >>> address = first.ctypes.data
        >>> second = pool.empty(1_000_000, np.float64)  # the first is still in use
        >>> second.ctypes.data == address
        False
        >>> del first
        >>> pool.empty(900_000, np.float64).ctypes.data == address
        True
    """

    def __init__(self, retain_bytes: int) -> None:
        self._retain_bytes = retain_bytes
        self._blocks: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    @property
    def retained_bytes(self) -> int:
        """How much memory the pool holds, in use or not."""
        with self._lock:
            return sum(block.nbytes for block in self._blocks)

    def empty(self, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of ``length`` elements, as ``numpy.empty`` does."""
        size = length * np.dtype(dtype).itemsize
        if not SMALLEST <= size <= self._retain_bytes:
            return np.empty(length, dtype)
        with self._lock:
            return self._take(size)[:size].view(dtype)

    def _take(self, size: int) -> NDArray[np.uint8]:
        """Return the best free block, the last of the list from now on, or a new one."""
        fitting = -1
        for i in range(len(self._blocks)):
            self._blocks.append(self._blocks.pop(0))  # each is last once, where it is counted
            fits = size <= self._blocks[-1].nbytes <= 4 * size
            if fits and _references(self._blocks) == _FREE:
                fitting = i
        if fitting >= 0:
            self._blocks.append(self._blocks.pop(fitting))
        else:
            # Whole powers of two, so that sizes that differ a little share blocks; what is not
            # touched costs no memory.
            made = np.empty(1 << (size - 1).bit_length(), np.uint8)
            self._blocks.append(made)
            while sum(block.nbytes for block in self._blocks) > self._retain_bytes:
                del self._blocks[0]  # the one not taken for longest; if in use, it lives on there
            return made
        return self._blocks[-1]
