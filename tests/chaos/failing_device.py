"""A device that runs out of memory, or fails on one request, costs nobody else anything.

Through HTTP, with a real queue: the device is held while the requests gather, so that they share
batches. Without halving, one poisoned request or a batch too large would fail all 32.
"""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

import httpx
import orjson
from finding import Finding, at_least, at_most
from instance import FAULTY, Instance, instance
from traffic import Connection, eventually, play, post, tagged

BLOCK, POISON = 777.0, 666.0


async def _together(running: Instance, folder: Path, tags: list[float], elements: int):
    """Answers to requests that were in the queue together."""
    (folder / "gate").touch()
    (folder / "blocked").unlink(missing_ok=True)
    connections = [await Connection.open(running) for _ in range(len(tags) + 1)]
    first = connections.pop().begin(post(tagged(BLOCK)))
    await eventually((folder / "blocked").exists)
    waiting = [
        connection.begin(post(tagged(tag, elements)))
        for connection, tag in zip(connections, tags, strict=True)
    ]
    whole = len(tags) * elements
    await eventually(lambda: running.metric("loss_scoring_queued_elements") >= whole)
    (folder / "gate").unlink()
    answers = await asyncio.gather(first, *waiting)
    return answers[1:]


def _tally(tags: list[float], answers) -> Counter[str]:
    seen: Counter[str] = Counter()
    for tag, answer in zip(tags, answers, strict=True):
        if answer.status != 200:
            seen[str(answer.status)] += 1
        else:
            right = orjson.loads(answer.body)["losses"]["mae"] == [tag]
            seen["right" if right else "wrong"] += 1
    return seen


def run(requests: int = 32) -> list[Finding]:
    tags = [float(n) for n in range(1, requests + 1)]
    poisoned = [POISON if n == 13 else tag for n, tag in enumerate(tags)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {"CHAOS_DIR": name, "CHAOS_MEMORY": "100"}
        with instance(
            FAULTY, environment=environment, inline_elements=0, idle_inline_elements=0
        ) as running:
            memory = _tally(tags, play(_together(running, folder, tags, 40)))
            poison = _tally(poisoned, play(_together(running, folder, poisoned, 2)))
            ready = httpx.get(f"{running.url}/readyz", timeout=30).is_success
    return [
        at_least(f"right answers of {requests}, 13 times the device's memory together",
                 memory["right"], requests),
        at_least(f"right answers beside one poisoned of {requests}", poison["right"], requests - 1),
        at_least("poisoned requests answered 500", poison["500"], 1),
        at_most("wrong answers", memory["wrong"] + poison["wrong"], 0),
        at_least("ready afterwards", ready, 1),
    ]  # fmt: skip
