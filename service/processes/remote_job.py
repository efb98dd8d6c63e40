"""A request as the front end keeps it, until the worker has released its memory."""

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core.buffers import SMALLEST, BufferPool
from loss_scoring.service.engine.scorer import Answer, Slice
from loss_scoring.service.errors import DeadlineError, OverloadedError, ScoringError
from loss_scoring.service.processes.endings import Suspicion
from loss_scoring.service.processes.memory import Arena
from loss_scoring.service.processes.wire import (
    AnswerLayout,
    Row,
    aligned,
    pack_options,
)
from loss_scoring.service.telemetry import TRACEPARENT

_ARENA_LOOKUP_BYTES = 1 << 16
"""Bytes of a side below which it is copied, wherever it lies."""


@dataclass(eq=False)
class RemoteJob:
    """One request.

    Attributes:
        number: Never used again.
        client: Whose share of the queue it takes.
        whole: All its series.
        deadline: On the monotonic clock.
        future: Of the answer.
        layout: How the answer lies in memory.
        suspicion: Whether it may have killed a worker.
        block: Where the answer goes.
        places: Where offsets, prediction and target, weights and scales, and the answer begin in
            the arena, once they do.
        sent: Whether the worker has it.
        traceparent: Its span, if it is traced.
    """

    number: int
    client: str
    whole: Slice
    deadline: float
    future: asyncio.Future[Answer]
    layout: AnswerLayout
    suspicion: Suspicion = field(default_factory=Suspicion)
    block: NDArray[np.uint8] | None = None
    places: tuple[int, tuple[int, int], tuple[int | None, int | None], int] | None = None
    sent: bool = False
    traceparent: str | None = field(default_factory=TRACEPARENT.get)

    @property
    def elements(self) -> int:
        return self.whole.prediction.elements

    def place(self, arena: Arena, pool: BufferPool) -> None:
        """Find out where the numbers lie, and copy those that the worker cannot see."""
        sides = self.whole.prediction.array, self.whole.target.array
        doubles = [
            column for column in (self.whole.weights, self.whole.scales) if column is not None
        ]
        columns = [*sides, *doubles]
        found = [
            arena.offset(column.ctypes.data, column.nbytes)
            if column.nbytes > _ARENA_LOOKUP_BYTES
            else None
            for column in columns
        ]
        copied: list[NDArray[Any]] = [self.whole.prediction.offsets]
        copied += [column for column, place in zip(columns, found, strict=True) if place is None]
        size = self.layout.size + sum(aligned(part.nbytes) for part in copied)
        block = pool.empty(max(size, SMALLEST), np.uint8)
        base = arena.offset(block.ctypes.data, size)
        if base is None:  # the pool has lent all it may keep
            block = arena.allocate(size)
            base = arena.offset(block.ctypes.data, size)
        if base is None:
            return
        start, starts = self.layout.size, []
        for part in copied:
            block[start : start + part.nbytes] = part.view(np.uint8)
            starts.append(base + start)
            start += aligned(part.nbytes)
        offsets, *rest = starts
        prediction, target, *further = (rest.pop(0) if x is None else x for x in found)
        weights = None if self.whole.weights is None else further.pop(0)
        scales = None if self.whole.scales is None else further.pop(0)
        self.block = block[: self.layout.size]
        self.places = offsets, (prediction, target), (weights, scales), base

    def row(self) -> Row:
        """Return what is sent to the worker."""
        assert self.places is not None  # noqa: S101 - else it is not sent
        return Row(
            self.number,
            pack_options(self.whole.options),
            self.whole.prediction.itemsize,
            len(self.whole.prediction),
            self.elements,
            None if math.isinf(self.deadline) else self.deadline,
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
