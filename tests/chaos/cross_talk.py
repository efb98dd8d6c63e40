"""Nobody gets another's answer, while 30 % of the clients hang up.

Small requests go through batches here (inline_elements=0), as only those could be mixed up. A
mistake in a span, an answer sent to a connection whose request was dropped, or a buffer given
back too early makes wrong answers; a server that hangs makes missing ones.
"""

import asyncio
import random
from collections import Counter

from checked import request_of
from finding import Finding, at_least, at_most
from instance import QUEUED, Instance, instance
from traffic import Connection, play

# Three in four of these do so before any answer can have come (half a request, or no wait at all),
# so that however fast the machine is, 30 % of the requests are cancelled under way.
HANG_UP = 0.45


async def _client(running: Instance, tags, seen: Counter[str]) -> None:
    connection = await Connection.open(running)
    for tag in tags:
        rng = random.Random(tag)
        request, known = request_of(tag, rng)
        hangs_up = rng.random() < HANG_UP
        if hangs_up and rng.random() < 0.3:
            connection.begin(request[: rng.randrange(len(request))])
            connection.hang_up()
            seen["cancelled"] += 1
            connection = await Connection.open(running)
            continue
        waiting = connection.begin(request)
        patience = rng.choice((0, 0, 0.005)) if hangs_up else 60
        done, _ = await asyncio.wait([waiting], timeout=patience)
        if done:
            answer = waiting.result()
            seen["right" if known.is_right(answer) else "wrong"] += 1
        else:
            seen["cancelled" if hangs_up else "missing"] += 1
        if hangs_up:
            connection.hang_up()
            connection = await Connection.open(running)
    connection.hang_up()


async def _all(running: Instance, requests: int, concurrency: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    tags = iter(range(1, requests + 1))
    await asyncio.gather(*(_client(running, tags, seen) for _ in range(concurrency)))
    return seen


def run(requests: int = 10_000, concurrency: int = 64, frontends: int = 0) -> list[Finding]:
    with instance(frontends=frontends, **QUEUED) as running:
        seen = play(_all(running, requests, concurrency))
        alive = running.alive
    return [
        at_most(f"wrong answers in {requests:,} tagged requests", seen["wrong"], 0),
        at_most("requests of patient clients without an answer", seen["missing"] + (not alive), 0),
        at_least("of them cancelled under way", seen["cancelled"] / requests * 100, 25, "%"),
        at_least("of them answered and compared", seen["right"] / requests * 100, 50, "%"),
    ]
