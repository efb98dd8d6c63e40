"""Others are served while 500 sockets dribble a byte now and then, half in the head, half in the body.

The dribblers share one address and announce 1 MiB each, so they meet the share of one client. It
fails when a slow request holds a thread or a slot, or when announced bytes are allocated at once.
"""

import asyncio
import time

from finding import Finding, at_least, at_most, quantile
from instance import MEBI, Instance, instance
from traffic import Connection, head, play, post, tagged

SLOW, OTHER = "127.0.0.2", "127.0.0.3"
HEAD = b"POST /score HTTP/1.1\r\nHost: chaos\r\nX-Slow: "


async def _dribble(running: Instance, n: int, open_: set[Connection]) -> None:
    connection = await Connection.open(running, SLOW)
    open_.add(connection)
    connection.send(HEAD if n % 2 else head(MEBI, timeout_ms=600_000))
    while not connection.closed.is_set():
        await asyncio.sleep(0.5)
        connection.send(b"x" if n % 2 else b" ")
    open_.discard(connection)


async def _crowd(running: Instance, sockets: int, seconds: float):
    open_: set[Connection] = set()
    tasks = [asyncio.create_task(_dribble(running, n, open_)) for n in range(sockets)]
    await asyncio.sleep(2)
    most = len(open_)
    end = time.perf_counter() + seconds
    times: list[float] = []
    failed = 0

    async def client() -> None:
        nonlocal failed
        request = post(tagged(5.0, 24))
        connection = await Connection.open(running, OTHER)
        while time.perf_counter() < end:
            answer = await connection.ask(request)
            times.append(answer.seconds)
            failed += answer.status != 200
            await asyncio.sleep(0.005)
        connection.hang_up()

    await asyncio.gather(*(client() for _ in range(8)))
    for task in tasks:
        task.cancel()
    for connection in list(open_):
        connection.hang_up()
    return times, failed, most


def run(sockets: int = 500, seconds: float = 10) -> list[Finding]:
    with instance() as running:
        before = running.resident_bytes
        running.reset_peak()
        times, failed, most = play(_crowd(running, sockets, seconds))
        grown = (running.peak_bytes - before) / MEBI
        failed += not running.alive
    return [
        at_least("slow sockets open at once", most, sockets * 0.9),
        at_most("requests of others that were not served", failed, 0),
        at_most("p99 of the others", quantile(times, 0.99) * 1e3, 50, "ms"),
        at_most(f"growth of the peak with {sockets} slow sockets", grown, 64, "MiB"),
    ]
