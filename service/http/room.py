"""The memory that open requests hold, shared among clients, and what a refusal says.

A request takes at its head what it is likely to need in all, body, numbers and answer; once it is
decoded, the rest is given back or taken. To refuse it only then would waste the decoding, which
under overload was half of the processor's time.
"""

import asyncio
import time
from collections import OrderedDict
from types import TracebackType
from typing import Any, Self

from service.engine.admission import ALONE, Admission, Verdict
from service.engine.drain import DrainRate
from service.errors import OverloadedError, OverShareError, TooLargeError

_REMEMBERED = 1024
"""Kinds of requests of clients."""


class Room:
    """The bytes that bodies and answers may take together.

    Args:
        max_bytes: How many.
    """

    def __init__(self, max_bytes: int) -> None:
        self._admission = Admission(max_bytes)
        self._drain = DrainRate()
        self._likely_most = int(ALONE * max_bytes / 2)
        self._expansion: OrderedDict[tuple[str, str], float] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """How many are taken."""
        return self._admission.held

    def hold(self, client: str) -> "Hold":
        """Return what one request of a client holds, nothing as yet."""
        return Hold(self, client)

    def take(self, client: str, size: int, held: int) -> None:
        """Take bytes for a request that holds some already.

        Raises:
            TooLargeError: If there would never be room.
            OverShareError: If the client holds so much that others need what is left.
            OverloadedError: If there is no room.
        """
        if held + size > 2 * self._likely_most:
            raise TooLargeError(
                f"body and answer need some {(held + size) >> 20} MiB, this server gives a request "
                f"{2 * self._likely_most >> 20}; split it by series, or ask for Arrow or for fewer "
                f"gradients"
            )
        verdict = self._admission.take(client, size)
        if verdict is Verdict.TAKEN:
            return
        after = self._drain.seconds_for(size, now=time.monotonic())
        if verdict is Verdict.OVER_SHARE and self._admission.held_by(client) > held:
            raise OverShareError(
                "your other requests hold most of the server's memory; await their answers",
                after,
                reason="memory-share",
            )
        raise OverloadedError(
            "the server's memory is full; try again later", after, reason="memory-full"
        )

    def likely(self, client: str, kind: str, size: int, held: int) -> int:
        """Return what a body of some kind and size is likely to need in all.

        Args:
            client: Whose it is; what others send must not make its bodies look large.
            kind: Such as ``json``; a client's requests of a kind are taken to be alike.
            size: Of the body, or of a part of it.
            held: What the request holds already; what is only likely must leave room for others.
        """
        expansion = self._expansion.get((client, kind), 1.0)
        return max(size, min(int(size * expansion), self._likely_most - held))

    def learn(self, client: str, kind: str, size: int, needed: int) -> None:
        """Note what a body needed in all."""
        before = self._expansion.pop((client, kind), 1.0)
        self._expansion[client, kind] = before + 0.1 * (needed / max(size, 1) - before)
        if len(self._expansion) > _REMEMBERED:
            self._expansion.popitem(last=False)

    def give_back(self, client: str, size: int) -> None:
        """Give bytes back."""
        self._admission.give_back(client, size)
        self._drain.drained(size, now=time.monotonic())


class Hold:
    """The bytes of one request; given back at the end of the ``with``, or of work that goes on."""

    __slots__ = ("_client", "_received", "_room", "_size", "_works", "kind")

    def __init__(self, room: Room, client: str) -> None:
        self._room = room
        self._client = client
        self._size = self._received = 0
        self._works: asyncio.Future[Any] | None = None
        self.kind = ""
        """What kind of request it is, once that is known."""

    def receive(self, size: int) -> None:
        """Take what a body, or a part of one, is likely to need; raises as ``Room.take`` does."""
        self._received += size
        self._take(self._room.likely(self._client, self.kind, size, self._size))

    def reserve(self, added: int) -> None:
        """Hold what was received and ``added`` bytes at least; raises as ``Room.take`` does."""
        self._take(max(self._received + added - self._size, 0))

    def settle(self, added: int) -> None:
        """Hold just what was received and ``added`` bytes; raises as ``Room.take`` does."""
        needed = self._received + added
        self._room.learn(self._client, self.kind, self._received, needed)
        if needed > self._size:
            self._take(needed - self._size)
        elif needed < self._size:
            self._room.give_back(self._client, self._size - needed)
            self._size = needed

    def until(self, work: asyncio.Future[Any]) -> None:
        """Keep the bytes until some work has ended that cannot be called off."""
        self._works = work

    def _take(self, size: int) -> None:
        self._room.take(self._client, size, self._size)
        self._size += size

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Give all of them back."""
        if self._works is not None and not self._works.done():
            self._works.add_done_callback(lambda _: self._give_back())
        else:
            self._give_back()

    def _give_back(self) -> None:
        if self._size:
            self._room.give_back(self._client, self._size)
