"""Runs batches of spans on a device."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch

from core import Kernel, Ragged, ScoreOptions, Scores, kernel_for, warm_up
from service.engine.staging import Staging
from service.engine.streams import CudaStreams

log = logging.getLogger(__name__)


class Piece(NamedTuple):
    """Consecutive series of one request, with what the device needs to score them."""

    prediction: Ragged
    target: Ragged
    options: ScoreOptions


def staging_for(device: torch.device) -> Staging | None:
    """Return how batches get to ``device`` while it computes; None if it is not a CUDA device."""
    return Staging(CudaStreams(device)) if device.type == "cuda" else None


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

    @cached_property
    def _staging(self) -> Staging | None:
        return self._stage(self.device)  # late, as a process with a CUDA context must not fork

    def warm_up(self) -> None:
        """Compile the kernel and score a tiny batch, so that no request waits for a compiler."""
        if self._kernel is kernel_for(self.device):
            warm_up(self.device)
        for dtype in (torch.float32, torch.float64):
            ragged = Ragged.from_lengths(torch.ones(2, dtype=dtype), [1, 1])
            self._start([Piece(ragged, ragged, ScoreOptions(gradients=True))]).finish()

    def score(self, pieces: Sequence[Piece]) -> list[Scores | Exception]:
        """Score pieces together; one that fails gets its exception and spoils no other."""
        return self.begin(pieces).finish()

    def score_one(self, piece: Piece) -> Scores | Exception:
        """Score one piece alone."""
        scored = self.finish_group([piece], self.begin_group([piece]))
        return scored if isinstance(scored, Exception) else scored[0]

    def begin(self, pieces: Sequence[Piece]) -> "Pending":
        """Start to score pieces, which with staging need not be scored when this returns.

        Pieces that agree in options and dtype share one kernel call.
        """
        alike: dict[tuple[ScoreOptions, torch.dtype], list[int]] = defaultdict(list)
        for i, piece in enumerate(pieces):
            alike[piece.options, piece.prediction.values.dtype].append(i)
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
        p, y = prediction.values, target.values
        on_cpu = self.device.type == "cpu"  # a copy that does nothing still costs
        if not on_cpu:
            p, y = p.to(self.device), y.to(self.device)
        scores = self._kernel(p, y, prediction.offsets, options)
        return _Scored(scores if on_cpu else scores.to("cpu"))

    def _failed(self, group: Sequence[Piece], error: Exception) -> Exception:
        log.error("scoring %d pieces failed on %s", len(group), self.device, exc_info=error)
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
            if not isinstance(scored, Exception):
                results.update(zip(places, scored, strict=True))
            elif len(group) == 1:
                results[places[0]] = scored
            else:  # find whose it is
                for place, piece in zip(places, group, strict=True):
                    results[place] = self._worker.score_one(piece)
        return [results[i] for i in range(len(results))]


def _cut(scores: Scores, group: Sequence[Piece]) -> list[Scores]:
    if len(group) == 1:
        return [scores]
    cut, series, elements = [], 0, 0
    for piece in group:
        ragged = piece.prediction
        stop, end = series + len(ragged), elements + len(ragged.values)
        cut.append(scores.slice(slice(series, stop), slice(elements, end)))
        series, elements = stop, end
    return cut
