"""A load generator that costs little itself: raw HTTP/1.1 over asyncio protocols.

It runs in its own process, sends one request over and over on a fixed number of keep-alive
connections, bounded in number and time, and refuses any answer but 200. It reads an answer
without keeping it.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import cast
from urllib.parse import urlsplit

import uvloop


@dataclass(frozen=True)
class Latencies:
    """What one run saw: seconds of each request, in order of completion, and of the whole run."""

    seconds: list[float]
    elapsed: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.seconds) / self.elapsed

    def quantile(self, share: float) -> float:
        """Seconds that a share of the requests did not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @property
    def median(self) -> float:
        """Seconds of the median request."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Load:
    """One request, sent over and over.

    Attributes:
        url: Where, on 127.0.0.1.
        body: The body to post; empty sends a GET.
        headers: Beside Host and Content-Length.
        connections: How many requests are under way at once.
        requests: Stop after so many.
        seconds: Or after so long, whichever comes first.
        pause: Seconds between an answer and the next request of a connection.
    """

    url: str
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    connections: int = 1
    requests: int = 1_000_000
    seconds: float = 5.0
    pause: float = 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, run: "_Run") -> None:
        self.run = run

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass
        self.send()

    def send(self) -> None:
        if not self.run.take():
            self.transport.close()
            return
        self.head = b""
        self.missing = -1
        self.started = time.perf_counter()
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        if self.missing < 0:
            self.head += data
            head, found, rest = self.head.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.run.fail(RuntimeError(self.head.decode(errors="replace")))
                return
            _, _, length = head.lower().partition(b"content-length:")
            self.missing = int(length.split(b"\r\n", 1)[0]) - len(rest)
        else:
            self.missing -= len(data)
        if self.missing == 0:
            self.run.latencies.append(time.perf_counter() - self.started)
            if self.run.load.pause:
                asyncio.get_running_loop().call_later(self.run.load.pause, self.send)
            else:
                self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if self.missing != 0:
            self.run.fail(error or ConnectionError("the server closed the connection"))
        self.run.closed()


class _Run:
    def __init__(self, load: Load) -> None:
        self.load = load
        url = urlsplit(load.url)
        if url.hostname != "127.0.0.1" or url.port is None:
            raise ValueError("load goes to a port of 127.0.0.1 only")
        self.address = (url.hostname, url.port)
        target = url.path + (f"?{url.query}" if url.query else "")
        headers = {"Host": url.netloc, **(load.headers or {})}
        if load.body:
            headers["Content-Length"] = str(len(load.body))
        lines = [f"{'POST' if load.body else 'GET'} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.request = "\r\n".join([*lines, "", ""]).encode() + load.body
        self.latencies: list[float] = []
        self.left = load.requests
        self.open = load.connections

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0 and time.perf_counter() < self.end and not self.done.done()

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def closed(self) -> None:
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)

    async def __call__(self) -> Latencies:
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = loop.create_future()
        started = time.perf_counter()
        self.end = started + self.load.seconds
        for _ in range(self.load.connections):
            await loop.create_connection(lambda: _Connection(self), *self.address)
        await asyncio.wait_for(self.done, self.load.seconds + 60)
        return Latencies(self.latencies, time.perf_counter() - started)


def run_here(load: Load) -> Latencies:
    """Run a load in this process."""
    return uvloop.run(_Run(load)())


class Client:
    """Runs loads in processes of their own, so that they share no interpreter with the caller."""

    def __init__(self, processes: int = 2) -> None:
        self._pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def start(self, load: Load) -> "Future[Latencies]":
        """Begin a load; the result comes with the future."""
        return self._pool.submit(run_here, load)

    def run(self, load: Load) -> Latencies:
        """Run a load to its end."""
        return self.start(load).result()

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()
