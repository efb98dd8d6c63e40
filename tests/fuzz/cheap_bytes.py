"""Bytes that cost a client nothing cost the service no more than others, and delay nobody.

Several connections send one kind at a time, as fast as it is answered: bodies in chunks of a byte,
heads of thousands of lines, lists, escapes and parameters. Beside them another client asks for
/livez. It fails when such a request holds the event loop, as a read of 40,000 chunks did for 90 ms,
or when it costs much more processor time than its bytes are worth.
"""

import asyncio
import time
from collections.abc import Mapping

from finding import Finding, at_least, at_most, quantile
from instance import MEBI, Instance, instance
from traffic import Connection, play, tagged
from wire import ARROW

BODY = tagged(1.0)
START = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = 31_000
READ = 500_000


def lines(*fields: bytes, query: bytes = b"", kind: bytes = b"application/json") -> bytes:
    """A request whose head is filled with something."""
    start = START.replace(b"/score", b"/score" + query).replace(b"application/json", kind)
    return (
        start
        + b"".join(b"%b\r\n" % one for one in fields)
        + b"Content-Length: %d\r\n\r\n" % len(BODY)
        + BODY
    )


def chunks(one: bytes) -> bytes:
    """A request whose body is blanks, in chunks of a kind, and then a document."""
    last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    return START + b"Transfer-Encoding: chunked\r\n\r\n" + one * (READ // len(one)) + last


KINDS: Mapping[str, bytes] = {
    "chunks of one byte": chunks(b"1\r\n \r\n"),
    "chunks of an empty line": chunks(b"2\r\n\r\n\r\n"),
    "chunks that look like the last": chunks(b"5\r\n\n\r\n\r\n\r\n"),
    "chunks of empty lines": chunks(b"1000\r\n%b\r\n" % (b"\r\n" * 2048)),
    "chunk extensions": chunks(b"1;a=b\r\n \r\n"),
    "empty header lines": lines(*[b"a:"] * (HEAD // 4)),
    "header lines": lines(*(b"%x:" % n for n in range(HEAD // 7))),
    "commas in Accept": lines(b"Accept: " + b"," * HEAD),
    "cookies": lines(b"Cookie: " + b"a=b;" * (HEAD // 4)),
    "escapes in the path": lines(query=b"/" + b"%41" * (HEAD // 3)),
    "parameters": lines(query=b"?" + b"a&" * (HEAD // 2)),
    "parameters of Arrow": lines(query=b"?" + b"losses=%41&" * (HEAD // 11), kind=ARROW.encode()),
    "empty lines before a request": b"\r\n" * 1000 + LIVEZ,
}  # fmt: skip


async def _send(running: Instance, data: bytes, end: float) -> int:
    """Send a request until the end; how many were answered."""
    count, connection = 0, await Connection.open(running)
    while time.perf_counter() < end:
        answer = await connection.ask(data)
        assert answer.status < 500, answer.body
        count += 1
        if answer.headers.get("connection") == "close":
            connection.hang_up()
            connection = await Connection.open(running)
    connection.hang_up()
    return count


async def _others(running: Instance, end: float) -> list[float]:
    connection, waits = await Connection.open(running, "127.0.0.2"), []
    while time.perf_counter() < end:
        waits.append((await connection.ask(LIVEZ)).seconds)
        await asyncio.sleep(0.005)
    connection.hang_up()
    return waits


async def _beside(running: Instance, data: bytes, seconds: float, connections: int):
    end = time.perf_counter() + seconds
    sending = [_send(running, data, end) for _ in range(connections)]
    *counts, waits = await asyncio.gather(*sending, _others(running, end))
    return sum(counts), waits


def findings(running: Instance, seconds: float, connections: int = 4) -> list[Finding]:
    """Judge a running service."""
    dearest, slowest, least = 0.0, 0.0, float("inf")
    play(_beside(running, lines(), 0.2, 1))
    before = running.resident_bytes
    running.reset_peak()
    for name, data in KINDS.items():
        cpu = running.cpu_seconds
        count, waits = play(_beside(running, data, seconds, connections))
        cost = (running.cpu_seconds - cpu) / max(count * len(data), 1) * 1e9
        wait = quantile(waits, 0.9) * 1e3
        print(f"{name}: {count} answered, {cost:.0f} ns a byte, 9 of 10 others within {wait:.1f} ms, "
              f"all within {max(waits) * 1e3:.0f} ms")  # fmt: skip
        dearest, slowest, least = max(dearest, cost), max(slowest, wait), min(least, count)
    grown = (running.peak_bytes - before) / MEBI
    return [
        at_least(f"requests of each of {len(KINDS)} kinds that were answered", least, 1),
        at_most("growth of the peak meanwhile", grown, 128, "MiB"),
        at_most("processor time of the dearest kind, a KiB", dearest / 1e6 * 1024, 1, "ms"),
        at_most("p90 of others beside the worst kind", slowest, 50, "ms"),
    ]  # fmt: skip


def run(seconds: float = 3) -> list[Finding]:
    with instance() as running:
        return findings(running, seconds)
