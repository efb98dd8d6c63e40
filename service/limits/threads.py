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

    Work waits outside the executor, where it can still be cancelled. What a thread has begun goes
    on even if its request is cancelled, which keeps its reservation until then.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_COUNT, thread_name_prefix="codec")
        self._free = asyncio.Semaphore(_COUNT)

    async def run(
        self, reservation: Reservation, work: Callable[..., _T], *arguments: object
    ) -> _T:
        """Return the result of a call in a thread.

        Args:
            reservation: Of the request.
            work: The function.
            arguments: Its arguments.
        """
        await self._free.acquire()
        future = asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        future.add_done_callback(self._done)
        reservation.until(future)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._free.release()
        if not future.cancelled():
            future.exception()  # marks it as retrieved, where its request was cancelled
