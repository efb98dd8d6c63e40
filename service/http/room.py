"""The memory that open requests hold, shared among clients, and what a refusal says."""

import time
from types import TracebackType
from typing import Self

from service.engine.admission import Admission, Verdict
from service.engine.drain import DrainRate
from service.errors import OverloadedError, OverShareError


class Room:
    """The bytes that bodies and answers may take together.

    Args:
        max_bytes: How many.
    """

    def __init__(self, max_bytes: int) -> None:
        self._admission = Admission(max_bytes)
        self._drain = DrainRate()

    @property
    def held_bytes(self) -> int:
        """How many are taken."""
        return self._admission.held

    def hold(self, client: str) -> "Hold":
        """Return what one request of a client holds, nothing as yet."""
        return Hold(self, client)

    def take(self, client: str, size: int) -> None:
        """Take bytes.

        Raises:
            OverShareError: If the client holds so much that others need what is left.
            OverloadedError: If there is no room.
        """
        verdict = self._admission.take(client, size)
        if verdict is Verdict.TAKEN:
            return
        after = self._drain.seconds_for(size, now=time.monotonic())
        if verdict is Verdict.OVER_SHARE:
            raise OverShareError(
                "your other requests hold most of the server's memory; await their answers", after
            )
        raise OverloadedError("the server's memory is full; try again later", after)

    def give_back(self, client: str, size: int) -> None:
        """Give bytes back."""
        self._admission.give_back(client, size)
        self._drain.drained(size, now=time.monotonic())


class Hold:
    """The bytes of one request; given back at the end of the ``with``."""

    def __init__(self, room: Room, client: str) -> None:
        self._room = room
        self._client = client
        self._size = 0

    def take(self, size: int) -> None:
        """Take more bytes; raises as ``Room.take`` does."""
        self._room.take(self._client, size)
        self._size += size

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        """Give all of them back."""
        if self._size:
            self._room.give_back(self._client, self._size)
