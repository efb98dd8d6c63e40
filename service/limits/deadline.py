"""Until when a request must be answered."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from loss_scoring.service.errors import DeadlineError

_T = TypeVar("_T")


class Deadline:
    """A moment on the monotonic clock, ``at``, that lies ``seconds`` ahead.

    It has no timer but while something is waited for: most requests are answered without waiting.
    """

    __slots__ = ("_seconds", "at")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.at = time.monotonic() + seconds

    def check(self) -> None:
        """Raise ``DeadlineError`` if it has passed."""
        if time.monotonic() > self.at:
            raise self._error()

    async def wait_for(self, awaitable: Awaitable[_T]) -> _T:
        """Return the result of an awaitable, which is cancelled at the deadline.

        Raises:
            DeadlineError: If it is not there in time.
        """
        try:
            async with asyncio.timeout(self.at - time.monotonic()) as timeout:
                return await awaitable
        except TimeoutError:
            if not timeout.expired():
                raise
            raise self._error() from None

    def _error(self) -> DeadlineError:
        return DeadlineError(f"the answer was not there after {self._seconds:g} s")
