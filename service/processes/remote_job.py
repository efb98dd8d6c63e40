"""A request as the front end keeps it, until the worker has let go of its memory."""

import asyncio
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.service.engine.scorer import Answer
from loss_scoring.service.errors import DeadlineError, OverloadedError, ScoringError
from loss_scoring.service.processes.memory import Place
from loss_scoring.service.processes.suspects import Suspicion
from loss_scoring.service.processes.wire import (
    Layout,
    Row,
    dtype_name,
    pack_deadline,
    pack_options,
)
from loss_scoring.service.telemetry.current import TRACEPARENT


@dataclass(eq=False)
class RemoteJob:
    """One request.

    Attributes:
        number: Never used again.
        client: Whose share of the queue it takes.
        prediction: One side.
        target: The other.
        options: What to compute.
        deadline: On the monotonic clock.
        future: Of the answer.
        layout: How the answer lies in memory.
        suspicion: Whether it may have killed a worker.
        block: Where the answer goes.
        places: Of offsets, prediction, target and answer, once all lie where the worker sees them.
        sent: Whether the worker knows of it.
        traceparent: Its span, if it is traced.
    """

    number: int
    client: str
    prediction: Ragged
    target: Ragged
    options: ScoreOptions
    deadline: float
    future: asyncio.Future[Answer]
    layout: Layout
    suspicion: Suspicion = field(default_factory=Suspicion)
    block: NDArray[np.uint8] | None = None
    places: tuple[Place, Place, Place, Place] | None = None
    sent: bool = False
    traceparent: str | None = field(default_factory=TRACEPARENT.get)

    @property
    def elements(self) -> int:
        """How many it has."""
        return self.prediction.elements

    def row(self) -> Row:
        """Return what the worker is told."""
        assert self.places is not None  # noqa: S101 - else it is not sent
        return Row(
            self.number,
            pack_options(self.options),
            dtype_name(self.prediction.dtype),
            len(self.prediction),
            self.elements,
            pack_deadline(self.deadline),
            self.suspicion.alone,
            self.traceparent,
            *self.places,
        )

    def answer(self, queue_s: float, compute_s: float) -> Answer:
        """Return what the worker has written."""
        assert self.block is not None  # noqa: S101 - it was sent
        return Answer(self.layout.scores(self.block), queue_s, compute_s)


def error_of(kind: str, detail: str, retry_after_s: int | None) -> Exception:
    """Return the error that the worker names."""
    if kind == OverloadedError.__name__:
        return OverloadedError(detail, retry_after_s or 1)
    return DeadlineError(detail) if kind == DeadlineError.__name__ else ScoringError(detail)
