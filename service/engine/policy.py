"""Which series the device scores next. Pure: no clock, no thread, no event loop.

There is no timer. A batch is whatever waited while the device was busy, in order, up to a budget
of elements; the request that does not fit is cut between two series. A request that had a batch to
itself goes to the back of the queue with what is left of it; one that was cut because others were
before it keeps its position. So a queued request sees each request ahead of it take at most one
batch of its own, and a request within the budget is cut at most once.
"""

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

_STALE_DEADLINES = 1024
"""Deadlines of answered requests that may stay in the heap."""


@dataclass(frozen=True)
class Span:
    """Consecutive series of one request, to be scored in one batch.

    Attributes:
        request: The number the caller gave the request.
        start: First series.
        stop: One past the last series.
        elements: How many elements they have together.
        waited: Seconds since the request was admitted.
        alone: Whether nothing else may be on the device beside it.
    """

    request: int
    start: int
    stop: int
    elements: int
    waited: float
    alone: bool = False


@dataclass
class _Waiting:
    offsets: Sequence[int]
    admitted: float
    alone: bool = False
    next_series: int = 0

    @property
    def elements(self) -> int:
        return self.offsets[-1] - self.offsets[self.next_series]


class BatchPolicy:
    """A queue of requests that is emptied in batches.

    Args:
        batch_elements: The budget of a batch. A single series may exceed it, alone.

    Example:
        >>> policy = BatchPolicy(batch_elements=4)
        >>> policy.admit(1, [0, 3, 6, 9], now=0.0)
        >>> policy.admit(2, [0, 1], now=0.0)
        >>> [(s.request, s.start, s.stop) for s in policy.next_batch(now=0.5)]
        [(1, 0, 1)]
        >>> [(s.request, s.start, s.stop) for s in policy.next_batch(now=1.0)]
        [(2, 0, 1), (1, 1, 2)]
    """

    def __init__(self, *, batch_elements: int) -> None:
        if batch_elements < 1:
            raise ValueError("batch_elements must be positive")
        self._most_elements = self._batch_elements = batch_elements
        self._queue: OrderedDict[int, _Waiting] = OrderedDict()
        self._queued_elements = 0
        self._deadlines: list[tuple[float, int]] = []

    @property
    def batch_elements(self) -> int:
        """The present budget of a batch."""
        return self._batch_elements

    @property
    def queued_elements(self) -> int:
        return self._queued_elements

    def admit(
        self,
        request: int,
        offsets: Sequence[int],
        *,
        now: float,
        deadline: float = math.inf,
        alone: bool = False,
    ) -> None:
        """Queue a request.

        Args:
            request: A number that no waiting request has.
            offsets: Where its series start and end, from 0; at least one series.
            now: Seconds on the caller's clock.
            deadline: After which its answer is not wanted, on the same clock.
            alone: Whether it may share no batch.
        """
        waiting = _Waiting(offsets, now, alone)
        self._queue[request] = waiting
        self._queued_elements += waiting.elements
        if deadline < math.inf:
            heappush(self._deadlines, (deadline, request))
            if len(self._deadlines) > 2 * len(self._queue) + _STALE_DEADLINES:  # most are answered
                self._deadlines = [entry for entry in self._deadlines if entry[1] in self._queue]
                heapify(self._deadlines)

    def withdraw(self, request: int) -> None:
        """Remove what is still queued of a request, if anything is."""
        waiting = self._queue.pop(request, None)
        if waiting is not None:
            self._queued_elements -= waiting.elements

    def shrink(self) -> None:
        """Halve the budget of batches: the device ran out of memory."""
        self._batch_elements = max(self._batch_elements // 2, 1)

    def recover(self) -> None:
        """Raise the budget by a 32nd of what was set: a batch went well."""
        more = self._batch_elements + -(-self._most_elements // 32)
        self._batch_elements = min(more, self._most_elements)

    def expire(self, *, now: float) -> list[int]:
        """Remove what is still queued of requests whose deadline has passed, and return those."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request = heappop(self._deadlines)
            if request in self._queue:
                self.withdraw(request)
                expired.append(request)
        return expired

    def next_batch(self, *, now: float, idle: bool = True) -> list[Span]:
        """Take the next batch off the queue; empty if nothing waits.

        Args:
            now: Seconds on the caller's clock.
            idle: Whether the device is. If not, a request that must be alone stays queued, and so
                do those behind it.
        """
        batch: list[Span] = []
        budget = self._batch_elements
        while self._queue:
            request, waiting = next(iter(self._queue.items()))
            if waiting.alone and (batch or not idle):
                break
            start, offsets = waiting.next_series, waiting.offsets
            stop = bisect_right(offsets, offsets[start] + budget, lo=start) - 1
            if stop <= start:
                if batch:
                    break
                stop = start + 1  # one series over the budget goes alone
            elements = offsets[stop] - offsets[start]
            waited = now - waiting.admitted
            batch.append(Span(request, start, stop, elements, waited, waiting.alone))
            budget -= elements
            self._queued_elements -= elements
            if stop < len(offsets) - 1:
                waiting.next_series = stop
                if len(batch) == 1:
                    self._queue.move_to_end(request)
                break
            del self._queue[request]
            if waiting.alone:
                break
        return batch
