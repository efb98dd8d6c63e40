"""Runs batches of spans on a device."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch

from core import Kernel, Ragged, ScoreOptions, Scores, kernel_for, takes_arrays, warm_up
from core.cores import available_cores
from service.engine.staging import Staging
from service.engine.streams import CudaStreams

log = logging.getLogger(__name__)

_EXHAUSTED = (torch.OutOfMemoryError, MemoryError)


class DeviceLostError(Exception):
    """The device cannot even score a batch of ones: nothing more is to be expected of it."""


class Piece(NamedTuple):
    """Consecutive series of one request, with what the device needs to score them."""

    prediction: Ragged
    target: Ragged
    options: ScoreOptions


def staging_for(device: torch.device) -> Staging | None:
    """Return how batches get to ``device`` while it computes; None if it is not a CUDA device."""
    return Staging(CudaStreams(device)) if device.type == "cuda" else None


def device_memory(device: torch.device) -> dict[str, int]:
    """Return bytes by state: allocated and reserved by this process, free, total.

    Empty on a CPU, and before the process has opened the device, which this does not.
    """
    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # the device is lost
        free = total = 0
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    return {"allocated": allocated, "reserved": reserved, "free": free, "total": total}


class Begun(Protocol):
    """Scores that are on their way."""

    @property
    def done(self) -> bool:
        """Whether ``finish`` would not wait."""

    def finish(self) -> Scores:
        """Return the scores; raises if the device failed."""


class _Scored:
    done = True

    def __init__(self, scores: Scores) -> None:
        self._scores = scores

    def finish(self) -> Scores:
        return self._scores


class DeviceWorker:
    """Owns one device: copies a batch to it, scores, copies back.

    Args:
        device: Where to compute.
        kernel: Overrides the kernel chosen for the device.
        stage: Overrides the staging chosen for the device. Without one, copies and kernels take
            turns, and a batch is scored once it has begun.
    """

    def __init__(
        self,
        device: torch.device,
        kernel: Kernel | None = None,
        stage: Callable[[torch.device], Staging | None] = staging_for,
    ) -> None:
        self.device = device
        self._kernel = kernel or kernel_for(device)
        self._stage = stage
        self.exhausted = 0
        """How often the device ran out of memory."""

    @cached_property
    def _staging(self) -> Staging | None:
        return self._stage(self.device)  # late, as a process with a CUDA context must not fork

    def warm_up(self) -> None:
        """Compile the kernel and score a tiny batch, so that no request waits for a compiler."""
        # torch takes a thread for each processor of the node, whatever a container has time for.
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
        if self._kernel is kernel_for(self.device):
            warm_up(self.device)
        self._score_ones()

    def _score_ones(self) -> None:
        for dtype in (torch.float32, torch.float64):
            ragged = Ragged.from_lengths(torch.ones(2, dtype=dtype), [1, 1])
            self._start([Piece(ragged, ragged, ScoreOptions(gradients=True))]).finish()

    def score(self, pieces: Sequence[Piece]) -> list[Scores | Exception]:
        """Score pieces together; one that fails gets its exception and spoils no other.

        Raises:
            DeviceLostError: If the device fails whatever it is given.
        """
        return self.begin(pieces).finish()

    def score_one(self, piece: Piece) -> Scores | Exception:
        """Score one piece alone; raises as ``score`` does."""
        return self.score_group([piece])[0]

    def score_group(self, group: Sequence[Piece]) -> Sequence[Scores | Exception]:
        """Score pieces that agree in options and dtype; raises as ``score`` does."""
        scored = self.finish_group(group, self.begin_group(group))
        return self.score_again(group, scored) if isinstance(scored, Exception) else scored

    def score_again(self, group: Sequence[Piece], error: Exception) -> Sequence[Scores | Exception]:
        """Score in halves what failed together: to find whose fault it is, or to need less memory.

        Raises:
            DeviceLostError: If the device fails whatever it is given.
        """
        if len(group) > 1:
            half = len(group) // 2
            return [*self.score_group(group[:half]), *self.score_group(group[half:])]
        piece = group[0]
        if isinstance(error, _EXHAUSTED) and len(piece.prediction) > 1:
            parts = [self.score_one(part) for part in _halves(piece)]
            failed = next((part for part in parts if isinstance(part, Exception)), None)
            return [failed or Scores.cat([part for part in parts if isinstance(part, Scores)])]
        try:
            self._score_ones()
        except Exception as lost:
            raise DeviceLostError(f"{self.device} fails whatever it is given") from lost
        return [error]

    def begin(self, pieces: Sequence[Piece]) -> "Pending":
        """Start to score pieces, which with staging need not be scored when this returns.

        Pieces that agree in options and dtype share one kernel call.
        """
        alike: dict[tuple[ScoreOptions, torch.dtype], list[int]] = defaultdict(list)
        for i, piece in enumerate(pieces):
            alike[piece.options, piece.prediction.dtype].append(i)
        groups = ((places, [pieces[i] for i in places]) for places in alike.values())
        return Pending(self, [(places, group, self.begin_group(group)) for places, group in groups])

    def begin_group(self, group: Sequence[Piece]) -> Begun | Exception:
        """Start to score pieces that agree in options and dtype."""
        try:
            return self._start(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, one group fails of it
            return self._failed(group, error)

    def finish_group(
        self, group: Sequence[Piece], begun: Begun | Exception
    ) -> list[Scores] | Exception:
        """Return the scores of each piece, or why there are none."""
        if isinstance(begun, Exception):
            return begun
        try:
            return _cut(begun.finish(), group)
        except Exception as error:  # noqa: BLE001 - whatever it is, one group fails of it
            return self._failed(group, error)

    def _start(self, group: Sequence[Piece]) -> Begun:
        predictions = [piece.prediction for piece in group]
        targets = [piece.target for piece in group]
        options = group[0].options
        if self._staging is not None:
            return self._staging.begin(predictions, targets, self._kernel, options)
        prediction, target = Ragged.cat(predictions), Ragged.cat(targets)
        if takes_arrays(self._kernel):
            sides = prediction.array, target.array
            return _Scored(self._kernel(*sides, prediction.edges, options))
        p, y = prediction.values, target.values
        on_cpu = self.device.type == "cpu"  # a copy that does nothing still costs
        if not on_cpu:
            p, y = p.to(self.device), y.to(self.device)
        scores = self._kernel(p, y, prediction.offsets, options)
        return _Scored(scores if on_cpu else scores.to("cpu"))

    def _failed(self, group: Sequence[Piece], error: Exception) -> Exception:
        log.error("scoring %d pieces failed on %s", len(group), self.device, exc_info=error)
        if isinstance(error, _EXHAUSTED):
            self.exhausted += 1
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # what is cached may be in blocks of the wrong size
        return error.with_traceback(None)  # its frames would keep the tensors alive


class Pending:
    """A batch that has begun."""

    def __init__(
        self,
        worker: DeviceWorker,
        groups: list[tuple[list[int], Sequence[Piece], Begun | Exception]],
    ) -> None:
        self._worker = worker
        self._groups = groups

    @property
    def done(self) -> bool:
        """Whether ``finish`` would not wait for the device."""
        return all(isinstance(begun, Exception) or begun.done for *_, begun in self._groups)

    def finish(self) -> list[Scores | Exception]:
        """Return the scores in the order of the pieces; call it once."""
        results: dict[int, Scores | Exception] = {}
        for places, group, begun in self._groups:
            scored = self._worker.finish_group(group, begun)
            if isinstance(scored, Exception):
                results.update(zip(places, self._worker.score_again(group, scored), strict=True))
            else:
                results.update(zip(places, scored, strict=True))
        return [results[i] for i in range(len(results))]


def _halves(piece: Piece) -> tuple[Piece, Piece]:
    """Cut a piece between two series, as near to the middle of its elements as may be."""
    prediction, target, options = piece
    edges = prediction.edges
    middle = min(max(int(np.searchsorted(edges, edges[-1] // 2)), 1), len(prediction) - 1)
    cuts = (0, middle), (middle, len(prediction))
    first, second = (Piece(prediction.slice(*cut), target.slice(*cut), options) for cut in cuts)
    return first, second


def _cut(scores: Scores, group: Sequence[Piece]) -> list[Scores]:
    if len(group) == 1:
        return [scores]
    cut, series, elements = [], 0, 0
    for piece in group:
        ragged = piece.prediction
        stop, end = series + len(ragged), elements + ragged.elements
        cut.append(scores.slice(slice(series, stop), slice(elements, end)))
        series, elements = stop, end
    return cut
