"""Batches on their way to a CUDA device and back, through pinned memory.

    host      slices -> pinned    slices -> pinned    finish        ...
    incoming            copy                copy
    compute                  kernel              kernel
    outgoing                       copy                copy

A batch is begun without waiting for the device, so that the copies of one batch pass while the
kernel of another runs. Each arrow down is an event that the next stream waits for; the host waits
for the last one only.

Until then a ``Staged`` refers to all that the device may still read or write: otherwise pinned
memory would be given to the next batch, and torch would give device memory to the next tensor of
the stream that it was made for, which need not be the stream that uses it. The scores are views of
pinned memory, which keep it in use until the answer is sent (``core.buffers``).
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loss_scoring.core import Kernel, Ragged, ScoreOptions, Scores
from loss_scoring.core.buffers import SMALLEST, BufferPool

log = logging.getLogger(__name__)

_PINNED = 512 << 20
"""Two batches of 4 Mi float64 in flight take 384 MiB with three gradients, and an answer that is
being sent 128."""
_LINE = 64


class CudaStreams:
    """Streams of one CUDA device; copies in, kernels and copies out may overlap.

    Whatever CUDA does asynchronously goes through this class, so that a test can replace it by one
    that is as late, or as early, as CUDA may be.

    Attributes:
        incoming: The stream of copies to the device.
        compute: The stream of kernels.
        outgoing: The stream of copies from the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.incoming, self.compute, self.outgoing = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for _ in range(3)
        )

    def use(self, stream: torch.cuda.Stream) -> AbstractContextManager[None]:
        """Return a context in which operations go to ``stream``."""
        return torch.cuda.stream(stream)

    def pin(self, size: int) -> NDArray[np.uint8]:
        """Return memory that the device copies from and to by itself.

        Torch keeps such memory once it has it. When no more can be had, ordinary memory is
        returned: copies are as correct, but the host waits for them.
        """
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        except RuntimeError as error:
            log.warning("no pinned memory of %d bytes: %s", size, error)
            return np.empty(size, np.uint8)

    def empty_like(self, host: Tensor) -> Tensor:
        """Return an uninitialised tensor on the device; it belongs to the stream in use."""
        return torch.empty_like(host, device=self._device)

    def copy(self, to: Tensor, source: Tensor) -> None:
        """Copy on the stream in use, without waiting if the side on the host is pinned."""
        to.copy_(source, non_blocking=True)

    def mark(self, stream: torch.cuda.Stream) -> torch.cuda.Event:
        """Return an event after all that ``stream`` was given so far."""
        # Blocking: a thread that waits sleeps, and leaves its core to the event loop.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        stream.record_event(event)
        return event

    def wait(self, stream: torch.cuda.Stream, event: torch.cuda.Event) -> None:
        """Let what ``stream`` is given from now on wait for ``event``."""
        stream.wait_event(event)

    def drain(self) -> None:
        """Wait until all streams are idle."""
        for stream in (self.incoming, self.compute, self.outgoing):
            stream.synchronize()


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

    def begin(  # noqa: PLR0913, PLR0917 - those of a kernel
        self,
        predictions: Sequence[Ragged],
        targets: Sequence[Ragged],
        kernel: Kernel,
        options: ScoreOptions,
        weights: NDArray[np.float64] | None = None,
        scales: NDArray[np.float64] | None = None,
    ) -> "Staged":
        """Start to score ragged parts that agree in dtype, as one batch.

        Weights and scales are those of all parts.
        """
        streams = self._streams
        elements = sum(part.elements for part in predictions)
        kind = elements, predictions[0].dtype
        doubles = [column for column in (weights, scales) if column is not None]
        sides = self._pinned([kind, kind, *((len(column), torch.float64) for column in doubles)])
        offsets = Ragged.cat(predictions, out=sides[0]).offsets
        Ragged.cat(targets, out=sides[1])
        for pinned, numbers in zip(sides[2:], doubles, strict=True):
            pinned.numpy()[:] = numbers
        try:
            with streams.use(streams.incoming):
                inputs = [streams.empty_like(side) for side in sides]
                for on_device, side in zip(inputs, sides, strict=True):
                    streams.copy(on_device, side)
            streams.wait(streams.compute, streams.mark(streams.incoming))
            with streams.use(streams.compute):
                p, y, *rest = inputs
                further = [None if x is None else rest.pop(0) for x in (weights, scales)]
                scores = kernel(p, y, offsets, options, *further)
            streams.wait(streams.outgoing, streams.mark(streams.compute))
            columns = [*scores.values.values(), *scores.masked.values(), *scores.gradients.values()]
            returned = self._pinned([(column.shape[0], column.dtype) for column in columns])
            with streams.use(streams.outgoing):
                for on_host, column in zip(returned, columns, strict=True):
                    streams.copy(on_host, column)
            back = streams.mark(streams.outgoing)
        except BaseException:
            streams.drain()  # before the memory that is copied from or to is released
            raise
        column_of = iter(returned)
        answer = Scores(
            {name: next(column_of) for name in scores.values},
            {name: next(column_of) for name in scores.masked},
            {name: next(column_of) for name in scores.gradients},
        )
        return Staged(back, answer, [*sides, *inputs, *columns])

    def _pinned(self, kinds: Sequence[tuple[int, torch.dtype]]) -> list[Tensor]:
        """Cut one block of pinned memory into tensors of these lengths and types."""
        sizes = [-(-length * dtype.itemsize // _LINE) * _LINE for length, dtype in kinds]
        # Below SMALLEST the memory of the pool is not pinned.
        block = torch.from_numpy(self._pool.empty(max(sum(sizes), SMALLEST), np.uint8))
        cut, start = [], 0
        for (length, dtype), size in zip(kinds, sizes, strict=True):
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
