"""Batches on their way to a CUDA device and back, through pinned memory.

    host      pieces -> pinned    pieces -> pinned    finish        ...
    incoming            copy                copy
    compute                  kernel              kernel
    outgoing                       copy                copy

A batch is begun without waiting for the device, so that the copies of one batch pass while the
kernel of another runs. Each arrow down is an event that the next stream waits for; the host waits
for the last one only.

All that the device may still read or write, a ``Staged`` refers to until then: pinned memory would
be given to the next batch, and torch would give device memory to the next tensor of the stream that
it was made for, which need not be the stream that uses it. What leaves with the scores are views of
pinned memory, and by them it stays in use until the answer is sent (``core.buffers``).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from loss_scoring.core import Kernel, Ragged, ScoreOptions, Scores
from loss_scoring.core.buffers import SMALLEST, BufferPool
from loss_scoring.service.engine.streams import CudaStreams

_PINNED = 512 << 20
"""Two batches of 4 Mi float64 in flight take 384 MiB with three gradients, and an answer that is
being sent 128."""
_LINE = 64


class Staging:
    """Copies batches to a device, has them scored and copies the scores back.

    Args:
        streams: The device's.
        pinned_bytes: The most pinned memory in use; beyond it ordinary memory is taken, and the
            host waits for copies.
    """

    def __init__(self, streams: CudaStreams, pinned_bytes: int = _PINNED) -> None:
        self._streams = streams
        self._pool = BufferPool(pinned_bytes, streams.pin)

    def begin(
        self,
        predictions: Sequence[Ragged],
        targets: Sequence[Ragged],
        kernel: Kernel,
        options: ScoreOptions,
    ) -> "Staged":
        """Start to score ragged parts that agree in dtype, as one batch."""
        streams = self._streams
        elements = sum(part.elements for part in predictions)
        kind = elements, predictions[0].dtype
        sides = self._pinned([kind, kind])
        offsets = Ragged.cat(predictions, out=sides[0]).offsets
        Ragged.cat(targets, out=sides[1])
        try:
            with streams.use(streams.incoming):
                inputs = [streams.empty_like(side) for side in sides]
                for there, here in zip(inputs, sides, strict=True):
                    streams.copy(there, here)
            streams.wait(streams.compute, streams.mark(streams.incoming))
            with streams.use(streams.compute):
                scores = kernel(inputs[0], inputs[1], offsets, options)
            streams.wait(streams.outgoing, streams.mark(streams.compute))
            columns = [*scores.values.values(), *scores.masked.values(), *scores.gradients.values()]
            returned = self._pinned([(column.shape[0], column.dtype) for column in columns])
            with streams.use(streams.outgoing):
                for here, there in zip(returned, columns, strict=True):
                    streams.copy(here, there)
            back = streams.mark(streams.outgoing)
        except BaseException:
            streams.drain()  # before what is copied from or to is let go of
            raise
        each = iter(returned)
        answer = Scores(
            {name: next(each) for name in scores.values},
            {name: next(each) for name in scores.masked},
            {name: next(each) for name in scores.gradients},
        )
        return Staged(back, answer, [*sides, *inputs, *columns])

    def _pinned(self, wanted: Sequence[tuple[int, torch.dtype]]) -> list[Tensor]:
        """Cut one block of pinned memory into tensors of these lengths and types."""
        sizes = [-(-length * dtype.itemsize // _LINE) * _LINE for length, dtype in wanted]
        # Below SMALLEST the pool's memory would not be pinned.
        block = torch.from_numpy(self._pool.empty(max(sum(sizes), SMALLEST), np.uint8))
        cut, start = [], 0
        for (length, dtype), size in zip(wanted, sizes, strict=True):
            cut.append(block[start : start + length * dtype.itemsize].view(dtype))
            start += size
        return cut


class Staged:
    """A batch in flight."""

    def __init__(self, back: torch.cuda.Event, answer: Scores, in_use: list[Tensor]) -> None:
        self._back = back
        self._answer = answer
        self._in_use = in_use

    @property
    def done(self) -> bool:
        """Whether ``finish`` would not wait."""
        try:
            return bool(self._back.query())  # type: ignore[no-untyped-call]
        except RuntimeError:
            return True  # finish says what failed

    def finish(self) -> Scores:
        """Wait for the scores; raises if a copy or the kernel failed."""
        self._back.synchronize()
        self._in_use.clear()
        return self._answer
