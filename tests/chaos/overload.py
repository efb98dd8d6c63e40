"""At three times the load it can carry the service still does its work, and refuses at once.

Capacity is what closed-loop clients get. Then requests come by the clock, whether answered or not,
from several addresses. Where there are two processors, the service has one of them and the clients
the other, so that three times the load does not take from the service what it is measured by. Fails when refusing costs as much as serving, when accepted requests wait
for so long that they miss their deadline of 5 s, or when a refusal waits in a queue.
"""

import asyncio
import contextlib
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator

import numpy as np
import orjson
from finding import Finding, at_least, at_most, quantile
from instance import MEBI, Instance, instance
from traffic import Connection, play, post

SOURCES = [f"127.0.0.{n}" for n in range(2, 10)]
FACTOR = 3
MOST_CONNECTIONS = 600
EARLY, DECODED = 1, 2


def request(elements: int) -> bytes:
    """Gradients of three losses: much more to do and to answer than to send."""
    values = np.random.default_rng(4).integers(1, 1000, (2, elements // 100, 100)).tolist()
    series = [{"prediction": p, "target": y} for p, y in zip(*values, strict=True)]
    return post(orjson.dumps({"series": series, "gradients": True}), timeout_ms=5000)


async def capacity(running: Instance, body: bytes, seconds: float, each: int = 1) -> float:
    """Requests per second that clients of 8 addresses get who ask again once they are answered."""
    end = time.perf_counter() + seconds
    answered = 0

    async def client(source: str) -> None:
        nonlocal answered
        connection = await Connection.open(running, source)
        while time.perf_counter() < end:
            answer = await connection.ask(body)
            answered += answer.status == 200
        connection.hang_up()

    await asyncio.gather(*(client(source) for source in SOURCES * each))
    return answered / seconds


async def offer(
    running: Instance, body: bytes, rate: float, seconds: float
) -> tuple[dict[int, list[float]], int]:
    """Send by the clock; the seconds of each answer by status, and how many were not sent."""
    idle: deque[Connection] = deque()
    seen: dict[int, list[float]] = defaultdict(list)
    tasks: set[asyncio.Task[None]] = set()
    unsent = opened = 0

    async def one(source: str) -> None:
        try:
            connection = idle.popleft() if idle else await Connection.open(running, source)
            answer = await connection.ask(body)
            seen[answer.status].append(answer.seconds)
            if answer.status in {429, 503}:
                late = "decode" in answer.headers.get("server-timing", "")
                seen[DECODED if late else EARLY].append(answer.seconds)
            if connection.closed.is_set() or answer.headers.get("connection") == "close":
                connection.hang_up()
            else:
                idle.append(connection)
        except (ConnectionError, TimeoutError):
            seen[0].append(0.0)

    started = time.perf_counter()
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(started + n / rate - time.perf_counter(), 0))
        if len(tasks) >= MOST_CONNECTIONS:
            unsent += 1
            continue
        task = asyncio.create_task(one(SOURCES[n % len(SOURCES)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        opened += 1
    elapsed = time.perf_counter() - started
    # What is answered later than the load lasts is not goodput of it.
    in_time = defaultdict(list, {status: list(times) for status, times in seen.items()})
    in_time[-1] = [elapsed]
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.hang_up()
    for status in (0, 429, 503, 504):
        in_time[status] = seen[status]
    return in_time, unsent


@contextlib.contextmanager
def on_its_own_processor(**settings: object) -> Iterator[Instance]:
    """Start a service on one processor, and use the others here as long as it runs."""
    all_ = os.sched_getaffinity(0)
    first = {min(all_)}
    try:
        os.sched_setaffinity(0, first)  # a child begins with what its parent has
        with instance(**settings) as running:
            os.sched_setaffinity(0, all_ - first or all_)
            yield running
    finally:
        os.sched_setaffinity(0, all_)


async def _both(running: Instance, elements: int, seconds: float):
    body = request(elements)
    await capacity(running, body, 1)
    before = await capacity(running, body, seconds)
    seen, unsent = await offer(running, body, FACTOR * before, seconds)
    after = await capacity(running, body, seconds)
    print(
        f"capacity {before:.0f}/s before, {after:.0f}/s after; { ({k: len(v) for k, v in seen.items()}) }"
    )
    # The machine has other work: the mean of before and after is what it could do meanwhile.
    return (before + after) / 2, seen, unsent


def run(seconds: float = 10, elements: int = 10_000) -> list[Finding]:
    limits = {"max_body_bytes": MEBI, "max_json_bytes": MEBI, "max_open_bytes": 16 * MEBI}
    with on_its_own_processor(**limits) as running:
        able, seen, unsent = play(_both(running, elements, seconds))
        alive = running.alive
    refusals = seen[503] + seen[429]
    goodput = len(seen[200]) / seen[-1][0]
    offered = sum(len(seen[status]) for status in (200, 429, 503, 504, 0))
    decoded = len(seen[DECODED]) / max(len(refusals), 1) * 100
    return [
        at_least(f"goodput at {FACTOR}x load, of {able:.0f}/s", goodput / able * 100, 90, "%"),
        at_most("p99 of the time to a refusal", quantile(refusals, 0.99) * 1e3, 50, "ms"),
        at_most("refusals that cost the reading of a body first", decoded, 10, "%"),
        at_most("accepted requests that missed their deadline or were lost",
                len(seen[504]) + len(seen[0]) + (not alive), 0),
        at_least("load really offered, in capacities", offered / seen[-1][0] / able, 2.4, "x"),
        at_most("requests the generator could not send", unsent, 0),
    ]  # fmt: skip
