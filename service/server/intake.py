"""The body of a request on its way from the parser to the application, chunk by chunk.

uvicorn gathers a body in a bytearray and copies it out of it again. Here the application gets the
chunks that the parser made, small ones merged. It reads only as fast as they are asked for: reading
pauses while more than a little waits.
"""

from collections import deque
from typing import cast

from uvicorn._types import HTTPDisconnectEvent, HTTPRequestEvent
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Intake:
    """Stands in for ``RequestResponseCycle.receive``.

    Args:
        cycle: The request; its flags say what the parser and the connection have seen.
        flow: The reading side of the connection.
    """

    __slots__ = ("_chunks", "_cycle", "_ended", "_flow", "_waiting_bytes")

    def __init__(self, cycle: RequestResponseCycle, flow: FlowControl) -> None:
        self._cycle = cycle
        self._flow = flow
        self._chunks: deque[bytes | bytearray] = deque()
        self._waiting_bytes = 0
        self._ended = False

    def add(self, chunk: bytes) -> None:
        """Take a chunk from the parser."""
        last = self._chunks[-1] if self._chunks else None
        if last is None or len(last) + len(chunk) > HIGH_WATER_LIMIT:
            self._chunks.append(chunk)
        elif isinstance(last, bytearray):
            last += chunk
        else:  # small ones are merged: an object each may cost more than what is in it
            self._chunks[-1] = bytearray(last) + chunk
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self._cycle.message_event.set()

    async def receive(self) -> HTTPRequestEvent | HTTPDisconnectEvent:
        """Return the next chunk, an empty one if somebody only wanted the clock to be looked at."""
        cycle = self._cycle
        if cycle.waiting_for_100_continue and not cycle.transport.is_closing():
            cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        if not cycle.disconnected and not cycle.response_complete:
            if not self._chunks and (cycle.more_body or self._ended):
                self._flow.resume_reading()
                await cycle.message_event.wait()
            cycle.message_event.clear()
        if cycle.disconnected or cycle.response_complete:
            return {"type": "http.disconnect"}
        chunk = self._chunks.popleft() if self._chunks else b""
        self._waiting_bytes -= len(chunk)
        more = bool(self._chunks) or cycle.more_body
        self._ended = not more
        body = cast("bytes", chunk)  # a bytearray does as well
        return {"type": "http.request", "body": body, "more_body": more}
