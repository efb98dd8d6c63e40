"""Reading and writing beside scoring, each in a thread of its own."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_STEPS = 4
"""Batches that are read before they are wanted."""


def ahead(items: Iterator[T], steps: int = _STEPS) -> Iterator[T]:
    """Yield what an iterator yields; a thread takes its next steps meanwhile, so many at most."""
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="read")
    waiting = deque([pool.submit(next, items, end) for _ in range(steps)])
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)


class Behind:
    """Calls that a thread makes in turn, at most one of them waiting."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._last: Future[None] | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Have it called once the call before it is done, whose exception is raised here."""
        self.wait()
        self._last = self._pool.submit(function)

    def wait(self) -> None:
        """Return once all is done, or raise what the last call raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()
