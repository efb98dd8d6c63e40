"""Messages and descriptors between two processes, over a Unix socket that is no file.

A SOCK_SEQPACKET socket keeps messages apart, and what a process had sent when it died still
arrives. Messages are small: numbers lie in shared memory.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson

log = logging.getLogger(__name__)

_LARGEST = 1 << 18
_PAUSE_S = 0.01
_DESCRIPTORS = 1
"""At most, in one message."""


class Channel:
    """One end, served by the event loop that ``open`` was called on.

    Args:
        end: Of a pair of connected sockets; the channel closes it.
        on_message: Called with each message and the descriptors it brought, which are the
            callee's.
        on_end: Called once when the other end has closed.
    """

    def __init__(
        self,
        end: socket.socket,
        on_message: Callable[[Any, list[int]], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        end.settimeout(0)
        self._end = end
        self._on_message = on_message
        self._on_end = on_end
        self._outbox: deque[tuple[bytes, Sequence[int]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Begin to read."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._end, self.read)

    def close(self) -> None:
        """Stop, which ends the other end."""
        if self._loop is not None:
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            self._loop = None
        self._outbox.clear()
        self._end.close()

    def read(self) -> None:
        """Receive all messages that have come."""
        while self._end.fileno() >= 0:
            try:
                raw, descriptors, _, _ = socket.recv_fds(
                    self._end, _LARGEST, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it died without reading all of ours; what it sent follows
            if not raw:
                if self._loop is not None:
                    self._loop.remove_reader(self._end)
                self._on_end()
                return
            self._on_message(orjson.loads(raw), descriptors)

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message, now or when the socket takes it.

        Args:
            message: What JSON can represent.
            descriptors: At most ``_DESCRIPTORS``, which the other end gets copies of.
        """
        self._outbox.append((orjson.dumps(message, default=tuple), descriptors))
        if len(self._outbox) == 1:
            self._write()

    def _write(self) -> None:
        while self._outbox:
            raw, descriptors = self._outbox[0]
            try:
                socket.send_fds(self._end, [raw], descriptors)
            except BlockingIOError:
                if self._loop is not None:
                    self._loop.add_writer(self._end, self._write)
                return
            except (BrokenPipeError, ConnectionError):  # it has died, as reading will show
                self._outbox.clear()
                break
            except OSError as error:  # such as too many descriptors in flight, or no memory
                log.warning("a message to the other process has to wait: %s", error)
                if self._loop is not None:
                    self._loop.call_later(_PAUSE_S, self._write)
                return
            self._outbox.popleft()
        if self._loop is not None:
            self._loop.remove_writer(self._end)
