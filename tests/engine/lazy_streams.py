"""CUDA without CUDA: streams that do what they were given as late, or as early, as CUDA may.

"Device" memory and pinned memory are arrays of garbage. An operation keeps nothing alive: it knows
where its memory was, as a GPU does, and looks there when it runs. A stream runs when the host waits for it, no
further than it must; with ``eagerness`` also now and then before, in a random order that events
allow. So a wait that is missing, or memory that was let go of or used again too early, gives wrong
numbers or a hazard.
"""

import random
import weakref
from collections import deque
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from loss_scoring.core import Scores

GARBAGE = 0xFF  # read as a float it is NaN


class Event:
    def __init__(self, stream):
        self._stream = stream
        self.reached = False
        self.failure = None

    def query(self):
        if self.failure is not None:
            raise RuntimeError("a failure before the event")
        return self.reached

    def synchronize(self):
        while not self.reached:
            self._stream.step()
        if self.failure is not None:
            raise self.failure


class Stream:
    def __init__(self):
        self.operations = deque()
        self.failure = None

    @property
    def blocked(self):
        awaited = self.operations[0][0] if self.operations else None
        return not self.operations or (awaited is not None and not awaited.reached)

    def step(self):
        awaited, operation = self.operations[0]
        while awaited is not None and not awaited.reached:
            awaited._stream.step()
        if awaited is not None:
            self.failure = self.failure or awaited.failure
        self.operations.popleft()
        operation()

    def drain(self):
        while self.operations:
            self.step()


class LazyStreams:
    """What ``service.engine.staging.CudaStreams`` is, on the CPU.

    ``log`` distinguishes kernel calls ("begun") from their runs ("run"), with the prediction's values for
    the latter; ``hazards`` lists what was used after it was let go of.
    """

    def __init__(self, eagerness=0.0, seed=0):
        self.incoming, self.compute, self.outgoing = self.streams = [Stream() for _ in range(3)]
        self.hazards, self.log = [], []
        self._memory = []
        self._eagerness, self._random = eagerness, random.Random(seed)
        self._current = self.compute

    @contextmanager
    def use(self, stream):
        before, self._current = self._current, stream
        try:
            yield
        finally:
            self._current = before

    def pin(self, size):
        block = np.full(size, GARBAGE, np.uint8)
        self._memory = [block for block in self._memory if block() is not None]
        self._memory.append(weakref.ref(block))
        return block

    def empty_like(self, host):
        return self._empty(host.shape[0], host.dtype)

    def _empty(self, length, dtype):
        return torch.from_numpy(self.pin(length * dtype.itemsize)).view(dtype)

    def copy(self, to, source):
        sides = [self._place(to), self._place(source)]
        if None in sides:  # pageable memory: the host waits
            self._current.drain()
            to.copy_(source)
            return
        self._give(lambda: self._run(lambda there, here: there.copy_(here), sides))

    def mark(self, stream):
        event = Event(stream)

        def reach():
            event.reached = True
            event.failure, stream.failure = stream.failure, None

        self._give(reach, stream)
        return event

    def wait(self, stream, event):
        self._give(lambda: None, stream, event)

    def drain(self):
        for stream in self.streams:
            stream.drain()

    def kernel(self, inner):
        """Return a kernel that runs ``inner`` when the stream gets to it."""

        def call(prediction, target, offsets, options, weights=None, scales=None):
            names = [spec.name for spec in options.losses]
            n, elements = len(offsets) - 1, prediction.shape[0]
            scores = Scores(
                {name: self._empty(n, torch.float64) for name in names},
                {
                    name: self._empty(n, torch.int64)
                    for name in options.masked(weighted=weights is not None)
                },
                {
                    name: self._empty(elements, prediction.dtype)
                    for name in names
                    if options.gradients
                },
            )
            given = [tensor for tensor in (weights, scales) if tensor is not None]
            tensors = (prediction, target, *given, *_columns(scores))
            places = [self._place(tensor) for tensor in tensors]

            def compute(p, y, *columns):
                self.log.append(("run", p.tolist()))
                further, columns = list(columns[: len(given)]), columns[len(given) :]
                w, s = (None if x is None else further.pop(0) for x in (weights, scales))
                for column, computed in zip(
                    columns, _columns(inner(p, y, offsets, options, w, s)), strict=True
                ):
                    column.copy_(computed)

            self.log.append(("begun",))
            self._give(lambda: self._run(compute, places))
            return scores

        return call

    def _give(self, operation, stream=None, awaited=None):
        (stream or self._current).operations.append((awaited, operation))
        while self._random.random() < self._eagerness:
            able = [stream for stream in self.streams if not stream.blocked]
            if not able:
                break
            self._random.choice(able).step()

    def _place(self, tensor):
        """Return where a tensor is, without keeping it alive; None if it is not this memory's."""
        size = tensor.shape[0] * tensor.dtype.itemsize
        if not size:
            return _Place(None, 0, 0, tensor.dtype)
        for reference in self._memory:
            block = reference()
            start = -1 if block is None else tensor.data_ptr() - block.ctypes.data
            if start >= 0 and start + size <= block.nbytes:
                return _Place(reference, start, size, tensor.dtype)
        return None

    def _run(self, work, places):
        found = [place.find() for place in places]
        if any(tensor is None for tensor in found):
            self.hazards.append("memory was let go of before it was used")
            return
        try:
            work(*found)
        except Exception as error:  # noqa: BLE001 - raised where the host waits
            self.compute.failure = error  # copies do not fail here


class _Place(NamedTuple):
    block: weakref.ref | None
    start: int
    size: int
    dtype: torch.dtype

    def find(self):
        if not self.size:
            return torch.empty(0, dtype=self.dtype)
        block = self.block()
        if block is None:
            return None
        return torch.from_numpy(block[self.start : self.start + self.size]).view(self.dtype)


def _columns(scores):
    return [
        column
        for part in (scores.values, scores.masked, scores.gradients)
        for column in part.values()
    ]
