"""kill -9 of the device worker every 2 s under load costs no request and changes no number.

Twelve clients ask JSON and Arrow, 20 bytes to 600 KB, with gradients. It fails when a front end
forgets what it had sent to a worker that died, when half-written answers of one that died are
taken for whole, when memory is given to somebody else while a worker may still write there, or when
requests are accused of killing a worker that somebody else killed.
"""

import asyncio
import os
import signal

from crowd import Crowd
from finding import Finding, at_least, at_most
from instance import QUEUED, Instance, instance
from traffic import play

LONGEST_S = 5
"""What an answer may take that waits for a worker; the next one is forked, so 0.2 s are usual."""


async def _kill(running: Instance, kills: int, every: float) -> tuple[Crowd, int]:
    killed = set()
    async with Crowd(running) as crowd:
        for _ in range(kills):
            await asyncio.sleep(every)
            worker = await asyncio.to_thread(lambda: running.worker)
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
        await asyncio.sleep(every)
    return crowd, len(killed)


def findings(running: Instance, kills: int, every: float) -> list[Finding]:
    """Judge a running service."""
    crowd, killed = play(_kill(running, kills, every))
    print(dict(crowd.seen))
    return [
        *crowd.findings(),
        at_least("workers killed", killed, kills),
        at_most("the longest answer", max(crowd.seconds), LONGEST_S, "s"),
    ]


def run(kills: int = 30, every: float = 2) -> list[Finding]:
    with instance(frontends=2, **QUEUED) as running:
        return findings(running, kills, every)
