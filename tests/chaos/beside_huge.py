"""Tiny requests keep a tail they can live with beside one client that sends huge ones.

One client posts 30 MB of JSON, or 64 MiB of Arrow with a gradient to send back, again and again;
eight others send one series each. It fails when a huge body is decoded or encoded on the event
loop, when the interpreter is held for long, or when a large batch cannot be cut.
"""

import asyncio
import time

from finding import Finding, at_least, at_most, quantile
from instance import MEBI, Instance, instance
from open_bodies import largest
from traffic import ARROW, JSON, Connection, play, post, tagged

LIMIT_MS = 150


async def _tiny(running: Instance, seconds: float) -> list[float]:
    end = time.perf_counter() + seconds
    times: list[float] = []

    async def client() -> None:
        connection = await Connection.open(running, "127.0.0.2")
        request = post(tagged(3.0, 24))
        while time.perf_counter() < end:
            answer = await connection.ask(request)
            assert answer.status == 200, answer
            times.append(answer.seconds)
            await asyncio.sleep(0.01)
        connection.hang_up()

    await asyncio.gather(*(client() for _ in range(8)))
    return times


async def _beside(running: Instance, request: bytes, seconds: float) -> tuple[list[float], int]:
    served = 0

    async def huge() -> None:
        nonlocal served
        connection = await Connection.open(running)
        while True:
            answer = await connection.ask(request)
            assert answer.status == 200, answer.body[:500]
            served += 1

    task = asyncio.create_task(huge())
    times = await _tiny(running, seconds)
    task.cancel()
    return times, served


def run(seconds: float = 8) -> list[Finding]:
    huge = {
        "30 MB of JSON": post(largest(JSON, 30 * MEBI)),
        "64 MiB of Arrow": post(largest(ARROW, 64 * MEBI), ARROW, "losses=mae&gradients=true"),
    }
    findings = []
    with instance() as running:
        alone = play(_tiny(running, min(seconds, 3)))
        findings.append(
            at_most("p99 of tiny requests alone", quantile(alone, 0.99) * 1e3, 50, "ms")
        )
        for name, request in huge.items():
            times, served = play(_beside(running, request, seconds))
            p99 = quantile(times, 0.99) * 1e3
            findings += [
                at_most(f"p99 of tiny requests beside a client of {name}", p99, LIMIT_MS, "ms"),
                at_least(f"its requests of {name} that were served meanwhile", served, 2),
            ]
    return findings
