"""A device that runs out of memory, or fails on one request, costs nobody else anything.

Through HTTP, with a real queue: the device is held while the requests gather, so that they share
batches. Without halving, one poisoned request or a batch too large would fail all 32.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

import httpx
import orjson
from finding import Finding, at_least, at_most
from instance import QUEUED, Instance, faulty, instance
from traffic import Answer, Connection, block, play, post, queued, tagged

POISON = 666.0


async def together(running: Instance, tags: Sequence[float], elements: int) -> list[Answer]:
    """Return the answers to requests that were in the queue together."""
    first = await block(running)
    connections = [await Connection.open(running) for _ in tags]
    waiting = [
        connection.begin(post(tagged(tag, elements)))
        for connection, tag in zip(connections, tags, strict=True)
    ]
    await queued(running, len(tags) * elements)
    running.gate.unlink()
    _, *answers = await asyncio.gather(first, *waiting)
    return answers


def tally(tags: Sequence[float], answers: Sequence[Answer]) -> Counter[str]:
    """Count answers that are right, wrong, and by status."""
    seen: Counter[str] = Counter()
    for tag, answer in zip(tags, answers, strict=True):
        if answer.status != 200:
            seen[str(answer.status)] += 1
        else:
            right = orjson.loads(answer.body)["losses"]["mae"] == [tag]
            seen["right" if right else "wrong"] += 1
    return seen


LITTLE = {"CHAOS_MEMORY": "100"}


def findings(running: Instance, requests: int = 32) -> list[Finding]:
    """Judge a running service with a faulty device of LITTLE memory."""
    tags = [float(n) for n in range(1, requests + 1)]
    poisoned = [POISON if n == 13 else tag for n, tag in enumerate(tags)]
    worker = running.worker if running.fronts else 0
    memory = tally(tags, play(together(running, tags, 40)))
    poison = tally(poisoned, play(together(running, poisoned, 2)))
    ready = httpx.get(f"{running.url}/readyz", timeout=30).is_success
    lost = [at_most("workers lost", running.worker != worker, 0)] if running.fronts else []
    return [
        at_least(f"right answers of {requests}, 13 times the device's memory together",
                 memory["right"], requests),
        at_least(f"right answers beside one poisoned of {requests}", poison["right"], requests - 1),
        at_least("poisoned requests answered 500", poison["500"], 1),
        at_most("wrong answers", memory["wrong"] + poison["wrong"], 0),
        at_least("ready afterwards", ready, 1),
        *lost,
    ]  # fmt: skip


def run(frontends: int = 0) -> list[Finding]:
    with instance(faulty(frontends), environment=LITTLE, frontends=frontends, **QUEUED) as running:
        return findings(running)
