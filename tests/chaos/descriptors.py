"""A server that runs out of file descriptors lives, and serves again when connections go away.

The server may have 64 descriptors; 300 connections come and stay for some seconds. It fails when
accepting gives up for good, when a file that cannot be opened ends the process, or when the server
burns its processor in a loop of failing accepts afterwards.
"""

import asyncio
import contextlib
import time

from finding import Finding, at_least, at_most
from instance import Instance, instance
from traffic import Connection, ask_once, play, post, tagged

NOFILE = 64


async def _exhaust(running: Instance, connections: int, seconds: float):
    held = []
    for _ in range(connections):
        with contextlib.suppress(OSError):
            held.append(await asyncio.wait_for(Connection.open(running), 5))
    await asyncio.sleep(1)
    full = running.descriptors
    answered = 0
    for connection in held[:10]:  # those that got in are served
        with contextlib.suppress(ConnectionError, TimeoutError):
            answered += (await connection.ask(post(tagged(1.0)), 5)).status == 200
    await asyncio.sleep(seconds)
    for connection in held:
        connection.hang_up()
    gone = time.perf_counter()
    while time.perf_counter() < gone + 20:
        with contextlib.suppress(OSError, TimeoutError):
            if (await ask_once(running, post(tagged(1.0)), timeout=1)).status == 200:
                return full, answered, time.perf_counter() - gone
        await asyncio.sleep(0.02)
    return full, answered, float("nan")


def run(connections: int = 300, seconds: float = 3) -> list[Finding]:
    with instance(nofile=NOFILE) as running:
        full, answered, recovered = play(_exhaust(running, connections, seconds))
        alive = running.alive
        used = running.descriptors if alive else 0
        cpu = running.cpu_seconds
        time.sleep(1)
        busy = running.cpu_seconds - cpu
    return [
        at_least(f"descriptors in use, of {NOFILE}", full, NOFILE - 2),
        at_least("requests served on 10 connections that got in", answered, 10),
        at_most("time until served again after the connections went", recovered, 5, "s"),
        at_most("descriptors left afterwards", used, 40),
        at_most("processor time of an idle second afterwards", busy, 0.2, "s"),
        at_least("still alive", alive, 1),
    ]
