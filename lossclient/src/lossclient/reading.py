"""An answer as it comes, within bounds of size and time.

httpx reads an answer whole, however large, and its read timeout begins again with each byte. So a
server that floods would fill the memory, and one that drips would keep a connection for good, also
when the call has ended.

`BoundedTransport` replaces the network backend of the connection pool of httpx's transport, which
both keep private. Tested with httpx 0.28, tested with httpcore 1.0, and by
``tests/test_private_names.py`` with those that are installed.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

PACE = 1 << 10
"""Bytes of a body that give it one more second."""
_PIECE = 1 << 16
"""Of a request: between two pieces the deadline is checked."""
SLOW = "the answer comes too slowly"


@dataclass(frozen=True)
class Reply:
    """What was read of an answer; its body may be cut, and is empty if nobody can use it."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes | bytearray


def coding_of(headers: Mapping[str, str]) -> str | None:
    """Return the content coding of an answer, None without one; no request asks for any."""
    coding = headers.get("content-encoding", "").strip()
    return coding if coding.lower() not in {"", "identity"} else None


class Reading:
    """One answer: what has come of it, and for how long it may go on.

    Its head must be there so many seconds after the request was sent, and its body after the head,
    where each KiB gives one more second.

    Args:
        most_bytes: Of its body; what is longer is cut one chunk later.
        within_s: Until the deadline, None without one.
        timeout_s: For the head, and again for the body; None takes any time.
        now: A monotonic clock.
    """

    def __init__(
        self,
        most_bytes: int,
        within_s: float | None,
        timeout_s: float | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        infinity = float("inf")
        self.content = bytearray()  # grows in place: chunks of a byte cost no object each
        self._most_bytes = most_bytes
        self._timeout_s = infinity if timeout_s is None else timeout_s
        self._now = now
        self._since = now()
        self._deadline = infinity if within_s is None else self._since + within_s

    def restart(self) -> None:
        """Begin to wait: the request is sent, or the head has come."""
        self._since = self._now()

    def left_s(self) -> float:
        """Return how long the next byte may take; negative if it is late."""
        end = self._since + self._timeout_s + len(self.content) / PACE
        return min(end, self._deadline) - self._now()

    def until_deadline_s(self) -> float:
        """Return how long the next byte of the request may take."""
        return self._deadline - self._now()

    def takes(self, chunk: bytes) -> bool:
        """Take a chunk of the body; return whether more is wanted.

        Raises:
            httpx.ReadTimeout: If it comes too slowly.
        """
        self.content += chunk
        if self.left_s() <= 0:  # also by way of a transport of the caller's
            raise httpx.ReadTimeout(SLOW)
        return len(self.content) <= self._most_bytes

    @contextmanager
    def by_this_thread(self) -> Iterator[None]:
        """Bound what `BoundedTransport` sends and receives in this thread meanwhile."""
        token = _reading.set(self)
        try:
            yield
        finally:
            _reading.reset(token)


_reading: ContextVar[Reading] = ContextVar("lossclient.reading")


class BoundedTransport(httpx.HTTPTransport):
    """httpx's, where the `Reading` of the thread bounds all reads and writes together.

    Tasks can be cancelled instead.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        pool: Any = self._pool  # httpcore takes such a backend, but httpx hands none on
        pool._network_backend = _Backend(pool._network_backend)  # noqa: SLF001


class _Backend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_tcp(*arguments, **options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left_s = _reading.get().left_s()
        if left_s <= 0:
            raise httpcore.ReadTimeout(SLOW)
        return self._stream.read(max_bytes, _sooner(timeout, left_s))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        reading = _reading.get()
        for piece in _pieces(buffer):
            left_s = reading.until_deadline_s()
            if left_s <= 0:
                raise httpcore.WriteTimeout("the request is taken too slowly")
            self._stream.write(piece, _sooner(timeout, left_s))
        reading.restart()

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(*arguments, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _sooner(timeout: float | None, left_s: float) -> float | None:
    sooner = left_s if timeout is None else min(timeout, left_s)
    return None if sooner == float("inf") else sooner


def _pieces(buffer: bytes) -> Iterable[bytes]:
    if len(buffer) <= _PIECE:
        return (buffer,)
    return (buffer[start : start + _PIECE] for start in range(0, len(buffer), _PIECE))
