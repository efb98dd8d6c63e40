"""Threads that read and write bodies, beside the event loop, shared fairly among clients.

``concurrent.futures`` joins its threads when the process ends, and so would wait for what nobody
waits for; these are daemons. All but what the threads themselves do happens on the event loop.
"""

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from loss_scoring.core.machine import available_cores
from loss_scoring.service.errors import forget_frames
from loss_scoring.service.limits.budget import Reservation

_T = TypeVar("_T")

_COUNT = min(8, available_cores() + 2) + 1
"""The numbers of a body are read without the GIL, the rest is not. One is for newcomers."""


class _Work(NamedTuple):
    future: asyncio.Future[Any]
    function: Callable[..., Any]
    arguments: tuple[object, ...]


class Threads:
    """Runs work of requests, as much at once as there are threads.

    A client that has a thread never gets the last one, and clients that wait take turns: large
    bodies of one client do not hold up another's.

    What a thread has begun for a request that is then cancelled goes on until it calls
    ``Reservation.check``; its request holds its bytes until then, and its client the thread.

    Args:
        count: The most threads; each is started when it is needed first.
    """

    def __init__(self, count: int = _COUNT) -> None:
        self._free = count
        self._idle = 0
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._work: SimpleQueue[_Work] = SimpleQueue()

    async def run(
        self, reservation: Reservation, function: Callable[..., _T], *arguments: object
    ) -> _T:
        """Return the result of some work.

        Args:
            reservation: Of the request.
            function: What to call.
            arguments: With what.

        Raises:
            RuntimeError: If no thread can be started.
        """
        client = reservation.client
        if self._may_take(client):
            self._take(client)
        else:
            await self._turn(client)
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        try:
            if not self._idle:
                threading.Thread(target=self._serve, name="codec", daemon=True).start()
                self._idle += 1
        except BaseException:  # there is no memory for it, or the process has too many
            self._release(client)
            raise
        self._idle -= 1
        self._work.put(_Work(future, function, arguments))
        future.add_done_callback(partial(self._done, client))
        reservation.until(future)
        return await asyncio.shield(future)

    def _may_take(self, client: str) -> bool:
        return self._free > 1 or (self._free == 1 and client not in self._held)

    def _take(self, client: str) -> None:
        self._free -= 1
        self._held[client] += 1

    async def _turn(self, client: str) -> None:
        """Wait for a thread and take it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was its turn at the same moment
                self._release(client)
            raise

    def _release(self, client: str) -> None:
        self._free += 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        while (following := next(filter(self._may_take, self._waiting), None)) is not None:
            turns = self._waiting.pop(following)
            turn = turns.popleft()
            if turns:
                self._waiting[following] = turns  # behind the others
            if not turn.done():  # else its request has ended
                self._take(following)
                turn.set_result(None)

    def _done(self, client: str, future: asyncio.Future[Any]) -> None:
        self._idle += 1
        self._release(client)
        if not future.cancelled():
            # Also marks it as retrieved: asyncio would log it for a cancelled request.
            forget_frames(future.exception())

    def _serve(self) -> None:
        while True:
            self._perform(*self._work.get())

    @staticmethod
    def _perform(
        future: asyncio.Future[_T], function: Callable[..., _T], arguments: tuple[object, ...]
    ) -> None:
        """Do some work; a function of its own, so that an idle thread keeps nothing of it."""
        result, error = None, None
        try:
            result = function(*arguments)
        except BaseException as raised:  # noqa: BLE001 - it is the request's
            error = raised
        with suppress(RuntimeError):  # the event loop has ended
            future.get_loop().call_soon_threadsafe(_settle, future, result, error)
        del future, arguments, result, error  # the traceback of an error refers to this frame


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
