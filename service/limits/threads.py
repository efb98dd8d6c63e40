"""Threads that read and write bodies, beside the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from loss_scoring.core.machine import available_cores
from loss_scoring.service.limits.budget import Reservation

_T = TypeVar("_T")

_COUNT = min(8, available_cores() + 2)
"""The numbers of a body are read without the GIL, the rest is not."""


class Threads:
    """Runs work of requests, as much at once as there are threads.

    Nothing waits inside the executor, where it could not be called off. What a thread has begun
    goes on when nobody waits for it any more, and its request holds its bytes until then.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_COUNT, thread_name_prefix="codec")
        self._free = asyncio.Semaphore(_COUNT)

    async def run(
        self, reservation: Reservation, work: Callable[..., _T], *arguments: object
    ) -> _T:
        """Return the result of some work.

        Args:
            reservation: Of the request.
            work: What to call.
            arguments: With what.
        """
        await self._free.acquire()
        future = asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        future.add_done_callback(self._done)
        reservation.until(future)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._free.release()
        if not future.cancelled():
            future.exception()  # if nobody waits for it any more, nobody is told
