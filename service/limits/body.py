"""Receives a body into memory, within limits of size and time.

The size is checked before the memory is spent. The time is ``timeout_s``, and one second more for
every ``min_bytes_per_s`` bytes that arrived (as Apache's RequestReadTimeout): a rule that ends
both a stalled client and one that sends a byte now and then, and that a large Content-Length does
not stretch.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from loss_scoring.service.codecs.pools import BODIES
from loss_scoring.service.errors import (
    DeadlineError,
    LateError,
    TooLargeError,
    UnreadableError,
)

BUFFERED = "loss_scoring.buffered"
"""A key in the scope of a request whose whole body has arrived, so that nothing needs a timer."""

_MOST_DIGITS = 18
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
            raise self.error()

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
            raise self.error() from None

    def error(self) -> DeadlineError:
        """Return what a request that misses it is refused with."""
        return DeadlineError(f"the answer was not there after {self._seconds:g} s")


class Pace(NamedTuple):
    """How slow a client may be."""

    timeout_s: float
    min_bytes_per_s: int


def whole_number(text: bytes) -> int | None:
    """Return the number that a header gives; None if it is none below 10^18."""
    digits = text.lstrip(b"0")  # Python refuses to read thousands of them
    return int(digits or b"0") if text.isdigit() and len(digits) <= _MOST_DIGITS else None


async def receive_body(  # noqa: PLR0913, PLR0917 - limits are no part of a request
    scope: Mapping[str, Any],
    headers: Mapping[bytes, bytes],
    receive: Receive,
    limit: int,
    pace: Pace,
    deadline: Deadline,
    reserve: Callable[[int], None],
) -> memoryview:
    """Return the whole body.

    A body of known length goes straight into one buffer of that size (aligned as Arrow wants it,
    and not touched before bytes arrive, so that an announced body costs nothing); a chunked one
    is gathered.

    Args:
        scope: Of the request.
        headers: Those of the request.
        receive: Of the request.
        limit: The most bytes.
        pace: How slowly they may come.
        deadline: Until when they must have come.
        reserve: Called with a number of bytes before they take memory; may raise.

    Raises:
        TooLargeError: If it is, or is announced to be, larger than ``limit`` bytes.
        UnreadableError: If its length is not the announced one.
        LateError: If it comes too slowly.
        DeadlineError: If the deadline passes meanwhile.
        ClientDisconnect: If the client went away before its end.
    """
    length = None
    if (announced := headers.get(b"content-length")) is not None:
        length = whole_number(announced)
        if length is None or length > limit:
            raise TooLargeError(
                f"the body has {announced[:20].decode('latin-1')} bytes, this server takes {limit}"
            )
        reserve(length)
    chunk, more = b"", True
    if BUFFERED in scope:
        chunk, more = _chunk_of(await receive())
        if not more and len(chunk) == length:
            return memoryview(chunk)
    body = _Chunked(limit, reserve) if length is None else _Sized(length)
    started = time.monotonic()
    body.add(chunk)
    try:
        async with asyncio.timeout(None) as timeout:
            while more:
                due = started + pace.timeout_s + body.received / pace.min_bytes_per_s
                left = min(due, deadline.at) - time.monotonic()
                timeout.reschedule(asyncio.get_running_loop().time() + left)
                chunk, more = _chunk_of(await receive())
                body.add(chunk)
    except TimeoutError:
        if not timeout.expired():
            raise
        if due >= deadline.at:
            raise deadline.error() from None
        raise LateError(
            f"{body.received} bytes of the body arrived in {time.monotonic() - started:.3g} s"
        ) from None
    return body.whole()


class _Sized:
    """A body whose length is known."""

    def __init__(self, length: int) -> None:
        self._buffer = memoryview(BODIES.empty(length, np.uint8))  # type: ignore[arg-type]
        self.received = 0

    def add(self, chunk: bytes) -> None:
        end = self.received + len(chunk)
        if end > len(self._buffer):
            raise UnreadableError("the body is longer than its Content-Length")
        self._buffer[self.received : end] = chunk
        self.received = end

    def whole(self) -> memoryview:
        if self.received < len(self._buffer):
            raise UnreadableError("the body is shorter than its Content-Length")
        return self._buffer


class _Chunked:
    """A body whose length only its end tells."""

    def __init__(self, limit: int, reserve: Callable[[int], None]) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._reserve = reserve
        self.received = 0

    def add(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received > self._limit:
            raise TooLargeError(f"the body is over the {self._limit} bytes that this server takes")
        self._reserve(len(chunk))
        self._buffer += chunk

    def whole(self) -> memoryview:
        return memoryview(self._buffer)


def _chunk_of(message: Message) -> tuple[bytes, bool]:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)
