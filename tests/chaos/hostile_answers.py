"""A broken server or proxy costs a client's caller the call, and the client nothing.

It answers drop by drop (in the head, before it, in the body), without end, and packed a thousand
times over, to a `Client` and an `AsyncClient` with one connection. It fails when a call outlives its
deadline, when the next one, which is answered well, finds no connection, or when memory grows.
"""

import asyncio
import gzip
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import family
from finding import Finding, at_least, at_most
from instance import MEBI

from lossclient import AsyncClient, Client, LossClientError

DEADLINE_S = 0.5
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apache.arrow.stream\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
GZIP = gzip.compress(bytes(MEBI))
ANSWERS = {
    "drops of a head": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x", 0.02),
    "heads before the head": (b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.02),
    "drops of a body": (CHUNKED + b"\r\n", b"1\r\nx\r\n", 0.02),
    "a flood": (CHUNKED + b"\r\n", b"100000\r\n" + bytes(MEBI) + b"\r\n", 0),
    "a packed flood": (
        CHUNKED + b"Content-Encoding: gzip\r\n\r\n",
        b"%x\r\n%s\r\n" % (len(GZIP), GZIP),
        0,
    ),
}
"""What comes first, what comes again and again, and the seconds between."""
WELL = b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serving(answers: Iterator[tuple[bytes, bytes, float]]) -> Iterator[str]:
    """Give each connection the next answer; yields the URL."""

    def send(connection: socket.socket, answer: tuple[bytes, bytes, float]) -> None:
        first, again, pause_s = answer
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(first)
            while again:
                connection.sendall(again)
                time.sleep(pause_s)

    def accept() -> None:
        with suppress(OSError):
            for answer in answers:
                given = listener.accept()[0], answer
                threading.Thread(target=send, args=given, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def _calls(client: Client | AsyncClient) -> tuple[list[float], int]:
    """Return the seconds of each hostile call, and how many next calls were answered."""
    seconds, answered = [], 0
    for number in range(2 * len(ANSWERS)):
        began = time.perf_counter()
        try:
            scores = client.score_series([[1.0]], [[1.0]])
            if not isinstance(client, Client):
                await scores
        except LossClientError as error:
            answered += "400" in str(error)
        if number % 2 == 0:
            seconds.append(time.perf_counter() - began)
    return seconds, answered


def measured(kind: type[Client | AsyncClient]) -> tuple[float, int, int]:
    """Return the longest time over a deadline, answered calls, and bytes that memory grew by."""
    answers = (pair for hostile in ANSWERS.values() for pair in (hostile, (WELL, b"", 0)))
    with serving(answers) as url:
        client = kind(url, retries=0, concurrency=1, deadline_s=DEADLINE_S)
        before = family.resident(os.getpid())
        seconds, answered = asyncio.run(_calls(client))
        time.sleep(4 * DEADLINE_S)  # what a call has left behind goes on
        grown = family.resident(os.getpid()) - before
    return max(seconds) - DEADLINE_S, answered, grown


def run() -> list[Finding]:
    findings = []
    for kind in (Client, AsyncClient):
        late, answered, grown = measured(kind)
        name = kind.__name__
        findings += [
            at_most(f"{name}: longest time of a hostile call beyond its deadline", late, 1, "s"),
            at_least(f"{name}: next calls answered, of {len(ANSWERS)}", answered, len(ANSWERS)),
            at_most(f"{name}: memory grown", grown / MEBI, 32, "MiB"),
        ]
    return findings
