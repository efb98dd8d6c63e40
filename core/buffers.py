"""Large buffers that are used again, so that their pages are faulted in once.

A fresh array of some megabytes costs more in page faults than a kernel needs to fill it, and giving
it back to the operating system makes the next one fresh again. The pool keeps the memory instead.

A block is free when only the pool refers to it: every view of it, be it a slice, a tensor, an Arrow
buffer or a memoryview on its way to a socket, holds a reference to the block itself. So nothing is
ever returned explicitly. This needs exact reference counts, hence the GIL.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from loss_scoring.core.forks import renew_in_children

SMALLEST = 1 << 18
"""Bytes below which the allocator itself keeps memory at hand."""


def _references(blocks: list[NDArray[np.uint8]]) -> int:
    """Count the references to the last block in a way that counts its own the same each time."""
    block = blocks[-1]
    return sys.getrefcount(block)


_FREE = _references([np.empty(1, np.uint8)])


def _allocate_memory(size: int) -> NDArray[np.uint8]:
    return np.empty(size, np.uint8)


class BufferPool:
    """Hands out uninitialised arrays.

    Args:
        retain_bytes: The most memory that is kept for later. An array that does not fit, beside
            those in use, is made as usual.
        allocate: Makes a block of so many bytes; ordinary memory unless given.

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

    def __init__(
        self, retain_bytes: int, allocate: Callable[[int], NDArray[np.uint8]] = _allocate_memory
    ) -> None:
        self._retain_bytes = retain_bytes
        self._allocate = allocate
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Forget all blocks: in a child, those that the parent's threads used are never free."""
        self._blocks: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def allocate_with(self, allocate: Callable[[int], NDArray[np.uint8]]) -> None:
        """Make blocks by ``allocate`` from now on, and forget those that were made before."""
        with self._lock:
            self._allocate = allocate
            self._blocks.clear()

    @property
    def retained_bytes(self) -> int:
        """How much memory the pool holds, in use or not."""
        with self._lock:
            return self._total()

    def _total(self) -> int:
        return sum(block.nbytes for block in self._blocks)

    def empty(self, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of ``length`` elements, as ``numpy.empty`` does."""
        size = length * np.dtype(dtype).itemsize
        if size >= SMALLEST:
            with self._lock:
                if self._take(size):
                    return self._blocks[-1][:size].view(dtype)
        return np.empty(length, dtype)

    def _take(self, size: int) -> bool:
        """Make a free block the last of the list; False if there is none and no memory left."""
        free = []
        for i in range(len(self._blocks)):
            self._blocks.append(self._blocks.pop(0))  # each is last once, where it is counted
            if _references(self._blocks) == _FREE:
                free.append(i)
        fitting = [i for i in free if size <= self._blocks[i].nbytes <= 4 * size]
        if fitting:
            self._blocks.append(self._blocks.pop(fitting[-1]))
            return True
        # Whole powers of two, so that sizes that differ a little share blocks; what is not touched
        # of ordinary memory costs none.
        whole = 1 << (size - 1).bit_length()
        excess = self._total() + whole - self._retain_bytes
        if excess > sum(self._blocks[i].nbytes for i in free):
            return False
        for dropped, i in enumerate(free):  # those not taken for longest come first
            if excess <= 0:
                break
            excess -= self._blocks.pop(i - dropped).nbytes
        self._blocks.append(self._allocate(whole))
        return True
