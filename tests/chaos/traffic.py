"""A client that can do what a good library forbids: send halves, hang up, choose its address."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import orjson
import uvloop
from instance import Instance
from wire import ARROW

JSON = "application/json"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


def post(body: bytes, kind: str = JSON, query: str = "", **headers: object) -> bytes:
    """A whole request; ``timeout_ms=5`` becomes the header X-Request-Timeout-Ms."""
    return head(len(body), kind, query, **headers) + body


def head(length: int, kind: str = JSON, query: str = "", **headers: object) -> bytes:
    names = {"timeout_ms": "X-Request-Timeout-Ms"}
    more = "".join(f"{names.get(k, k.replace('_', '-'))}: {v}\r\n" for k, v in headers.items())
    return (
        f"POST /score{query and '?' + query} HTTP/1.1\r\nHost: chaos\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\n{more}\r\n"
    ).encode()


def tagged(tag: float, elements: int = 1, **options: object) -> bytes:
    """A request of one series; its mae is its tag."""
    series = {"prediction": [tag] * elements, "target": [0.0] * elements}
    return orjson.dumps({"losses": ["mae"], "series": [series], **options})


_OPEN: set["Connection"] = set()


def play(crowd: Coroutine[Any, Any, _T]) -> _T:
    """Run a crowd of clients to its end; then all of them hang up."""

    async def main() -> _T:
        _OPEN.clear()  # those of another loop, which has ended
        try:
            return await crowd
        finally:
            for connection in list(_OPEN):
                connection.hang_up()
            await asyncio.sleep(0.05)

    return uvloop.run(main())


class Connection(asyncio.Protocol):
    """A keep-alive connection that has at most one request under way."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._missing = -1
        self._waiter: asyncio.Future[Answer] | None = None
        self.closed = asyncio.Event()

    @classmethod
    async def open(cls, instance: Instance, source: str = "127.0.0.1") -> Self:
        _, protocol = await asyncio.get_running_loop().create_connection(
            cls, "127.0.0.1", instance.port, local_addr=(source, 0)
        )
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        _OPEN.add(self)

    def begin(self, data: bytes) -> "asyncio.Future[Answer]":
        """Send a request, or its beginning; the future is its answer."""
        self._waiter = self._loop.create_future()
        self._started = time.perf_counter()
        if self.closed.is_set():
            self.connection_lost(None)
        else:
            self.transport.write(data)
        return self._waiter

    async def ask(self, data: bytes, timeout: float = 60) -> Answer:  # noqa: ASYNC109
        """Send a request and await its answer; ConnectionError if there comes none."""
        return await asyncio.wait_for(self.begin(data), timeout)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def hang_up(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.cancel()
        self.transport.abort()

    @property
    def part_of_an_answer(self) -> bool:
        """Whether the connection ended amid an answer."""
        return bool(self._received)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._missing < 0:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            first, *lines = self._received[:end].decode("latin-1").split("\r\n")
            self._status = int(first.split()[1])
            pairs = (line.split(":", 1) for line in lines)
            self._headers = {name.lower(): value.strip() for name, value in pairs}
            del self._received[: end + 4]
            self._missing = int(self._headers.get("content-length", 0))
        if len(self._received) < self._missing or self._waiter is None:
            return
        body = bytes(self._received[: self._missing])
        del self._received[: self._missing]
        self._missing = -1
        if not self._waiter.done():
            seconds = time.perf_counter() - self._started
            self._waiter.set_result(Answer(self._status, self._headers, body, seconds))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
        _OPEN.discard(self)
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(error or ConnectionError("closed without an answer"))


async def ask_once(
    instance: Instance,
    data: bytes,
    source: str = "127.0.0.1",
    timeout: float = 60,  # noqa: ASYNC109
) -> Answer:
    connection = await Connection.open(instance, source)
    try:
        return await connection.ask(data, timeout)
    finally:
        connection.hang_up()


async def eventually(condition, timeout: float = 20) -> None:  # noqa: ASYNC109
    """Await a condition of another process."""
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come about")
        await asyncio.sleep(0.01)


BLOCK = 777.0


async def block(running: Instance) -> "asyncio.Future[Answer]":
    """Hold the faulty device until the gate goes, by a request of one element; its answer."""
    running.gate.touch()
    running.blocked.unlink(missing_ok=True)
    connection = await Connection.open(running)
    waiting = connection.begin(post(tagged(BLOCK)))
    await eventually(running.blocked.exists)
    return waiting


async def queued(running: Instance, elements: int) -> None:
    """Await that just so many elements wait for a held device."""
    counted = elements + bool(running.fronts)  # there, what is on the device counts as well
    await eventually(lambda: running.metric("loss_scoring_queued_elements") == counted)
    await asyncio.sleep(0.2 * bool(running.fronts))  # on their way to the worker


__all__ = [
    "ARROW",
    "JSON",
    "Answer",
    "Connection",
    "ask_once",
    "block",
    "eventually",
    "head",
    "play",
    "post",
    "queued",
    "tagged",
]
