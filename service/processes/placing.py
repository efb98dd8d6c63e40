"""Lays requests where the worker sees them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core.buffers import SMALLEST, BufferPool
from loss_scoring.service.processes.memory import Place, SharedMemory
from loss_scoring.service.processes.remote_job import RemoteJob
from loss_scoring.service.processes.wire import aligned

_RETAINED = 256 << 20
_LOOKED_UP = 1 << 16
"""Bytes of a side below which it is copied, wherever it lies."""


class Placing:
    """Finds a place for the numbers of a request and for its answer, in shared memory."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._pool = BufferPool(_RETAINED, memory.allocate)

    def place(self, job: RemoteJob) -> None:
        """Find out where the numbers lie, and copy those the worker cannot see."""
        sides = job.prediction.array, job.target.array
        found = [
            self._memory.find(side.ctypes.data, side.nbytes) if side.nbytes > _LOOKED_UP else None
            for side in sides
        ]
        copied: list[NDArray[Any]] = [job.prediction.offsets]
        copied += [side for side, place in zip(sides, found, strict=True) if place is None]
        size = job.layout.size + sum(aligned(part.nbytes) for part in copied)
        block = self._pool.empty(max(size, SMALLEST), np.uint8)
        base = self._memory.find(block.ctypes.data, size)
        if base is None:  # the pool has lent all it may keep
            block = self._memory.allocate(size)
            base = self._memory.find(block.ctypes.data, size)
        if base is None:
            return
        start, places = job.layout.size, []
        for part in copied:
            block[start : start + part.nbytes] = part.view(np.uint8)
            places.append(Place(base.segment, base.start + start))
            start += aligned(part.nbytes)
        offsets, *rest = places
        prediction, target = (place or rest.pop(0) for place in found)
        job.block = block[: job.layout.size]
        job.places = offsets, prediction, target, base
