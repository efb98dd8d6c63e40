"""kill -9 or SIGSTOP of a front end costs those who are connected to it, once, and nobody else.

Their connections are cut; asked again, the same requests are answered. Connections to the other
front end and the worker go on, and another front end takes the place of the dead one. One that is
stopped is killed once it was silent for ``hung_s``. It fails when the worker dies of a front end that goes, gives its memory to somebody else too early, or when
connections that wait to be accepted die with a front end, or when one that starts makes the other
hang in ``accept`` (as it did: the socket is one, and so is the flag that it does not block).
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence

from crowd import Crowd
from finding import Finding, at_least, at_most
from instance import QUEUED, Instance, instance
from traffic import eventually, play

HUNG_S = 3
STARTING_S = 40
"""What a new front end may take on a busy machine: it imports pyarrow and numba."""


async def _kill(running: Instance, signals: Sequence[int]) -> tuple[Crowd, int, list[float]]:
    rng = random.Random(5)
    bystanders, replaced = 0, []
    async with Crowd(running, 16) as crowd:
        for number in signals:
            await asyncio.sleep(2)
            before, lost = running.frontends, len(crowd.lost)
            os.kill(rng.choice(sorted(before)), number)
            started = time.perf_counter()
            await eventually(lambda b=before: len(running.frontends - b) == 1, 3 * STARTING_S)
            await asyncio.to_thread(running.await_ready)
            replaced.append(time.perf_counter() - started)
            whose = Counter(front for front in crowd.lost[lost:] if front)
            bystanders += whose.total() - max(whose.values(), default=0)
    return crowd, bystanders, replaced


def findings(running: Instance, signals: Sequence[int]) -> list[Finding]:
    """Judge a running service."""
    worker = running.worker
    crowd, bystanders, replaced = play(_kill(running, signals))
    seen = crowd.seen
    print(dict(seen))
    return [
        *(one for one in crowd.findings() if "without" not in one.promise),
        at_most(f"connections cut in {len(signals)} ends of a front end, of 16 clients",
                seen["lost"], 16 * len(signals)),
        at_least("of them, which shows that the dead were at work", seen["lost"], 1),
        at_most("connections to other front ends that were cut", bystanders, 0),
        at_most("time until two front ends serve again", max(replaced), STARTING_S, "s"),
        at_most("the longest answer", max(crowd.seconds), HUNG_S + 2, "s"),
        at_most("workers that it cost", running.worker != worker, 0),
    ]  # fmt: skip


def run() -> list[Finding]:
    signals = signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL, signal.SIGKILL
    with instance(frontends=2, hung_s=HUNG_S, **QUEUED) as running:
        return findings(running, signals)
