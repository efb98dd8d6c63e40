"""One packet for a small answer: its head waits for its body.

uvicorn writes the head of an answer, then the body, and uvloop hands each to the system at once.
Two system calls and two packets cost a small request more than the arithmetic in it.
"""

import asyncio


class HeadHolder:
    """What a request's cycle writes to, in place of the transport.

    Args:
        transport: The connection.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = b""

    def write(self, data: bytes | memoryview) -> None:
        """Hold the head of the answer; write the first part of the body together with it."""
        head = self._head
        if head:
            self._head = None
            self._transport.writelines((head, data))
        elif head is None or bytes(data[:13]) == b"HTTP/1.1 100 ":  # interim: not yet the head
            self._transport.write(data)
        else:
            self._head = bytes(data)

    def close(self) -> None:
        """Close the connection once all is written."""
        if self._head:  # the answer broke off
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether the connection is closing."""
        return self._transport.is_closing()
