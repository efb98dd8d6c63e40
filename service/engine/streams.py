"""What staging asks of CUDA: three streams, events between them, pinned memory.

Everything that CUDA does behind the program's back goes through this class, so that a test can put
another in its place that does it as late, or as early, as CUDA may.
"""

import logging
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger(__name__)


class CudaStreams:
    """Streams of one CUDA device; copies in, kernels and copies out may overlap.

    Args:
        device: A CUDA device.

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

        Torch keeps such memory once it has it. Where there is no more, ordinary memory is returned:
        copies are right all the same, but the host waits for them.
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
        # Blocking: who waits sleeps, and leaves the event loop its core.
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
