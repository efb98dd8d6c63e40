"""What the layers above know of an engine, be its device in this process or in another."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core import Ragged, ScoreOptions, Scores

BatchObserver = Callable[[tuple[int, int, float]], None]
"""Called with the slices, elements and seconds of a batch, for metrics."""


class Slice(NamedTuple):
    """Consecutive series of one request, with what the device needs to score them.

    Attributes:
        weights: float64, one an element, if they have any.
        scales: float64, one a series, if they have any.
    """

    prediction: Ragged
    target: Ragged
    options: ScoreOptions
    weights: NDArray[np.float64] | None = None
    scales: NDArray[np.float64] | None = None

    def cut(self, start: int, stop: int) -> "Slice":
        """Return the series from ``start`` to ``stop``, exclusive, as views."""
        prediction, target, options, weights, scales = self
        if weights is not None:
            weights = weights[prediction.offsets[start] : prediction.offsets[stop]]
        if scales is not None:
            scales = scales[start:stop]
        sides = prediction.slice(start, stop), target.slice(start, stop)
        return Slice(*sides, options, weights, scales)

    def empty_answer(self) -> "Answer":
        """Return the answer to a request without series."""
        weighted = self.weights is not None
        return Answer(Scores.empty(self.options, self.prediction.itemsize, weighted=weighted))

    @property
    def agreement(self) -> tuple[ScoreOptions, int, bool, bool]:
        """What slices must have in common to share a kernel call."""
        has_weights, has_scales = self.weights is not None, self.scales is not None
        return self.options, self.prediction.itemsize, has_weights, has_scales


class Answer(NamedTuple):
    """The scores of a request and what they cost.

    Attributes:
        scores: One row a series, in the request's order.
        queue_s: Seconds from admission to the first batch.
        compute_s: Seconds in batches, neighbours included; where two overlap, both count.
    """

    scores: Scores
    queue_s: float = 0.0
    compute_s: float = 0.0


@dataclass(frozen=True)
class Limits:
    """How large is small, and how long is too long.

    Attributes:
        inline_elements: The largest request that ``score_inline`` takes. On a CPU that is quicker
            than to wake a thread, which then contends for the interpreter; on another device it
            must be 0.
        idle_inline_elements: The same where no other request is in progress, which would wait for
            the event loop.
        hung_s: A batch that takes longer means that the device hangs.
    """

    inline_elements: int = 0
    idle_inline_elements: int = 0
    hung_s: float = math.inf


class ScoringEngine(Protocol):
    """The engine as routes see it; ``Engine`` says what each part does."""

    @property
    def ready(self) -> bool: ...

    @property
    def lost(self) -> bool: ...

    @property
    def queued_elements(self) -> int: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def score_inline(self, whole: Slice, *, idle: bool = False) -> Answer | None: ...

    def submit(
        self, whole: Slice, *, client: str = "", deadline: float = math.inf
    ) -> asyncio.Future[Answer]: ...
