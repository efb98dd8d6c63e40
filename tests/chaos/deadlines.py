"""A deadline is kept while the device is busy: 504 on time.

Each batch takes 400 ms here and holds one request, so most of 64 requests with deadlines of 50 to
1500 ms are queued when theirs comes. Were deadlines only looked at between batches, the overshoot
would be up to 400 ms.
"""

import asyncio
import random

from finding import Finding, at_least, at_most, quantile
from instance import QUEUED, Instance, faulty, instance
from traffic import Connection, play, post, tagged


async def _crowd(running: Instance, requests: int) -> tuple[list[float], int]:
    rng = random.Random(3)
    overshoots: list[float] = []
    late = 0

    async def one(timeout_ms: int) -> None:
        nonlocal late
        connection = await Connection.open(running)
        await asyncio.sleep(rng.random())
        answer = await connection.ask(post(tagged(1.0, 10), timeout_ms=timeout_ms))
        connection.hang_up()
        overshoots.append(answer.seconds * 1e3 - timeout_ms)
        late += answer.status == 504

    await asyncio.gather(*(one(rng.randint(50, 1500)) for _ in range(requests)))
    return overshoots, late


SLOW = {"CHAOS_BATCH_S": "0.4"}


def findings(running: Instance, requests: int) -> list[Finding]:
    """Judge a running service with a SLOW faulty device and ``batch_elements=10``."""
    overshoots, late = play(_crowd(running, requests))
    return [
        at_most("p99 of the deadline's overshoot", quantile(overshoots, 0.99), 100, "ms"),
        at_most("the largest overshoot", max(overshoots), 250, "ms"),
        at_least("requests that met their deadline in the queue", late / requests * 100, 50, "%"),
    ]


def run(requests: int = 256) -> list[Finding]:
    with instance(faulty(), environment=SLOW, batch_elements=10, **QUEUED) as running:
        return findings(running, requests)
