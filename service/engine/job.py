"""A request on its way through the engine, until its answer is whole."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loss_scoring.core import Ragged, ScoreOptions, Scores
from loss_scoring.service.engine.policy import Span
from loss_scoring.service.engine.scorer import Answer
from loss_scoring.service.engine.worker import Slice
from loss_scoring.service.errors import ScoringError


@dataclass(eq=False)
class Job:
    """One request.

    Attributes:
        prediction: One side.
        target: The other.
        options: What to compute.
        future: Of the answer.
        unscored: How many series are.
        parts: The scores of consecutive series so far.
        queue_s: Seconds from admission to the first batch.
        compute_s: Seconds in batches.
        watch: Notified whether the request is on the device.
        traceparent: Its span, if it is traced.
    """

    prediction: Ragged
    target: Ragged
    options: ScoreOptions
    future: asyncio.Future[Answer]
    unscored: int
    parts: list[Scores] = field(default_factory=list)
    queue_s: float = 0.0
    compute_s: float = 0.0
    watch: Callable[[bool], None] | None = None
    traceparent: str | None = None

    def slice(self, span: Span) -> Slice:
        """Return the series of a span, for the device."""
        cut = span.start, span.stop
        return Slice(self.prediction.slice(*cut), self.target.slice(*cut), self.options)

    def notify(self, *, on_device: bool) -> None:
        """Notify the watcher whether it is on the device."""
        if self.watch is not None:
            self.watch(on_device)

    def collect(
        self, span: Span, result: Scores | Exception, seconds: float
    ) -> Answer | Exception | None:
        """Add a result; return the answer once it is whole."""
        if isinstance(result, Exception):
            return failure(result)
        if not self.parts:
            self.queue_s = span.waited
        self.compute_s += seconds
        self.parts.append(result)
        self.unscored -= span.stop - span.start
        if self.unscored:
            return None
        return Answer(Scores.cat(self.parts), self.queue_s, self.compute_s)


def failure(error: Exception) -> ScoringError:
    """Return the error that a client gets for an error of the device."""
    return ScoringError(f"the device could not score it: {type(error).__name__}")


def deliver(answers: Sequence[tuple[asyncio.Future[Answer], Answer | Exception]]) -> None:
    """Resolve futures, on the event loop, but for those that were cancelled."""
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
