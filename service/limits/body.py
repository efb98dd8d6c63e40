"""Receives a body into memory, within limits of size and time.

The size is checked before the memory is spent. The time is ``timeout_s``, and one second more for
every ``min_bytes_per_s`` bytes that arrived (as Apache's RequestReadTimeout): one rule that ends
both a stalled client and one that sends a byte now and then, and that a large Content-Length does
not stretch. The clock is looked at when a chunk arrives and the body is not complete; a client that
sends nothing is noticed as ``service.server.protocol`` hands over an empty chunk now and then. So a
body that is already there costs no timer and no task.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from loss_scoring.service.codecs.pools import BODIES
from loss_scoring.service.errors import LateError, TooLargeError, UnreadableError
from loss_scoring.service.limits.deadline import Deadline


class Pace(NamedTuple):
    """How slow a client may be."""

    timeout_s: float
    min_bytes_per_s: int

    def check(self, started: float, received: int) -> None:
        """Raise ``LateError`` if more should have arrived by now."""
        if time.monotonic() - started > self.timeout_s + received / self.min_bytes_per_s:
            raise LateError(
                f"{received} bytes of the body arrived in {time.monotonic() - started:.3g} s"
            )


async def receive_body(  # noqa: PLR0913, PLR0917 - limits are no part of a request
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
    is gathered and joined.

    Args:
        headers: Those of the request.
        receive: Of the request.
        limit: The most bytes.
        pace: How slowly they may come.
        deadline: Until when they must have come; noticed when a chunk comes, or a tick later.
        reserve: Called with a number of bytes before they take memory; may raise.

    Raises:
        TooLargeError: If it is, or is announced to be, larger than ``limit`` bytes.
        UnreadableError: If its length is not the announced one.
        LateError: If it comes too slowly.
        DeadlineError: If the deadline passes meanwhile.
        ClientDisconnect: If the client went away before its end.
    """
    announced = headers.get(b"content-length")
    if announced is None:
        return await _receive_chunked(receive, limit, pace, deadline, reserve)
    length = int(announced) if announced.isdigit() else limit + 1
    if length > limit:
        raise TooLargeError(
            f"the body has {announced.decode('latin-1')} bytes, this server takes {limit}"
        )
    reserve(length)
    started = time.monotonic()
    chunk, more = _chunk_of(await receive())
    if not more and len(chunk) == length:
        return memoryview(chunk)  # a small body comes at once
    buffer = memoryview(BODIES.empty(length, np.uint8))  # type: ignore[arg-type]
    filled = 0
    while True:
        end = filled + len(chunk)
        if end > length:
            raise UnreadableError("the body is longer than its Content-Length")
        buffer[filled:end] = chunk
        filled = end
        if not more:
            break
        pace.check(started, filled)
        deadline.check()
        chunk, more = _chunk_of(await receive())
    if filled < length:
        raise UnreadableError("the body is shorter than its Content-Length")
    return buffer


async def _receive_chunked(
    receive: Receive,
    limit: int,
    pace: Pace,
    deadline: Deadline,
    reserve: Callable[[int], None],
) -> memoryview:
    started = time.monotonic()
    body, more = bytearray(), True
    while more:
        pace.check(started, len(body))
        deadline.check()
        chunk, more = _chunk_of(await receive())
        if len(body) + len(chunk) > limit:
            raise TooLargeError(f"the body is over the {limit} bytes that this server takes")
        reserve(len(chunk))
        body += chunk
    return memoryview(body)


def _chunk_of(message: Message) -> tuple[bytes, bool]:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)
