"""Runs batches of spans on a device."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch

from core import Kernel, Ragged, ScoreOptions, Scores, kernel_for, warm_up

log = logging.getLogger(__name__)


class Piece(NamedTuple):
    """Consecutive series of one request, with what the device needs to score them."""

    prediction: Ragged
    target: Ragged
    options: ScoreOptions


class DeviceWorker:
    """Owns one device: copies a batch to it, scores, copies back.

    Args:
        device: Where to compute.
        kernel: Overrides the kernel chosen for the device.
    """

    def __init__(self, device: torch.device, kernel: Kernel | None = None) -> None:
        self.device = device
        self._kernel = kernel or kernel_for(device)

    def warm_up(self) -> None:
        """Compile the kernel and score a tiny batch, so that no request waits for a compiler."""
        if self._kernel is kernel_for(self.device):
            warm_up(self.device)
        for dtype in (torch.float32, torch.float64):
            ragged = Ragged.from_lengths(torch.ones(2, dtype=dtype), [1, 1])
            self._score_group([Piece(ragged, ragged, ScoreOptions(gradients=True))])

    def score(self, pieces: Sequence[Piece]) -> list[Scores | Exception]:
        """Score pieces together; one that fails gets its exception and spoils no other.

        Pieces that agree in options and dtype share one kernel call.
        """
        if len(pieces) == 1:
            return [self.score_one(pieces[0])]
        groups: dict[tuple[ScoreOptions, torch.dtype], list[int]] = defaultdict(list)
        for i, piece in enumerate(pieces):
            groups[piece.options, piece.prediction.values.dtype].append(i)
        results: dict[int, Scores | Exception] = {}
        for members in groups.values():
            scored = self._attempt([pieces[i] for i in members])
            if isinstance(scored, Exception) and len(members) > 1:  # find whose it is
                results.update((i, self.score_one(pieces[i])) for i in members)
            elif isinstance(scored, Exception):
                results[members[0]] = scored
            else:
                results.update(zip(members, scored, strict=True))
        return [results[i] for i in range(len(pieces))]

    def score_one(self, piece: Piece) -> Scores | Exception:
        """Score one piece alone."""
        scored = self._attempt([piece])
        return scored if isinstance(scored, Exception) else scored[0]

    def _attempt(self, group: Sequence[Piece]) -> list[Scores] | Exception:
        try:
            return self._score_group(group)
        except Exception as error:
            log.exception("scoring %d pieces failed on %s", len(group), self.device)
            return error.with_traceback(None)  # its frames would keep the tensors alive

    def _score_group(self, group: Sequence[Piece]) -> list[Scores]:
        if len(group) == 1:
            return [self._score(*group[0])]
        prediction = Ragged.cat([piece.prediction for piece in group])
        target = Ragged.cat([piece.target for piece in group])
        scores = self._score(prediction, target, group[0].options)
        cut, series, elements = [], 0, 0
        for piece in group:
            ragged = piece.prediction
            stop, end = series + len(ragged), elements + len(ragged.values)
            cut.append(scores.slice(slice(series, stop), slice(elements, end)))
            series, elements = stop, end
        return cut

    def _score(self, prediction: Ragged, target: Ragged, options: ScoreOptions) -> Scores:
        p, y = prediction.values, target.values
        if self.device.type == "cpu":  # a copy that does nothing still costs
            return self._kernel(p, y, prediction.offsets, options)
        p, y = (side.to(self.device, non_blocking=True) for side in (p, y))
        return self._kernel(p, y, prediction.offsets, options).to("cpu")
