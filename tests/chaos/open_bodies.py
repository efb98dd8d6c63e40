"""Memory stays bounded while 64 bodies of the largest size are open at once.

Half of the clients (an address each) send all of their body, half stop amid it. What is over
``max_open_bytes`` must be refused before it takes memory: without that, 64 bodies of 32 MiB would
take 2 GiB where 256 MiB are allowed. SLACK is what stands beside the account by design: three
pools that keep buffers for later (256 + 256 + 128 MiB at most, docs/decisions/0013-reused-buffers.md; they fill to
what was once used) and the memory of sockets and of the interpreter. Behind front ends each has a
SLACK of its own, and the shared memory that the worker reads counts twice.
"""

import asyncio
from collections import Counter

import numpy as np
import pyarrow as pa
from finding import Finding, at_least, at_most
from instance import MEBI, Instance, instance
from traffic import ARROW, JSON, Connection, ask_once, head, play, post, tagged
from wire import stream

SLACK = 192 * MEBI


def largest(kind: str, size: int) -> bytes:
    """A good body of nearly ``size`` bytes."""
    if kind == JSON:
        count = size // 17
        row = b"[" + b",".join([b"1234.25"] * count) + b"]"
        return b'{"series":[{"prediction":' + row + b',"target":' + row + b"}]}"
    values = np.ones((size - 4096) // 8, np.float32)
    column = pa.ListArray.from_arrays([0, len(values)], pa.array(values))
    return stream(pa.table({"prediction": column, "target": column}))


async def _crowd(running: Instance, bodies: int, size: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    made = {kind: largest(kind, size) for kind in (JSON, ARROW)}
    halves = asyncio.Event()

    async def client(n: int) -> None:
        kind = (JSON, ARROW)[n // 2 % 2]
        body = made[kind]
        connection = await Connection.open(running, f"127.0.1.{n + 1}")
        waiting = connection.begin(head(len(body), kind) + body[: len(body) // 2])
        if n % 2:  # only the first half, until all others are answered
            done, _ = await asyncio.wait([waiting], timeout=1)
            if not done:
                seen["half-sent"] += 1
                await halves.wait()
                waiting.cancel()
            else:
                seen[str(waiting.result().status)] += 1
            connection.hang_up()
            return
        await asyncio.sleep(0.5)
        connection.send(body[len(body) // 2 :])
        try:
            seen[str((await asyncio.wait_for(waiting, 60)).status)] += 1
        except ConnectionError:
            seen["closed"] += 1
        connection.hang_up()

    clients = [asyncio.create_task(client(n)) for n in range(bodies)]
    await asyncio.gather(*clients[::2])
    halves.set()
    await asyncio.gather(*clients[1::2])
    for _ in range(100):  # what the hung-up bodies held comes back
        answer = await ask_once(running, post(tagged(1.0)))
        if answer.status == 200:
            seen["afterwards"] = 1
            break
        await asyncio.sleep(0.05)
    return seen


def run(
    bodies: int = 64, size: int = 32 * MEBI, room: int = 256 * MEBI, frontends: int = 0
) -> list[Finding]:
    with instance(
        frontends=frontends, max_body_bytes=size, max_json_bytes=size, max_open_bytes=room
    ) as running:
        running.reset_peak()
        before = running.resident_bytes
        seen = play(_crowd(running, bodies, size))
        grown = running.peak_bytes - before
        alive = running.alive
    print(dict(seen))
    odd = sum(
        n for k, n in seen.items() if k not in {"200", "503", "429", "half-sent", "afterwards"}
    )
    return [
        at_most(
            f"growth of the peak with {bodies} bodies of {size / MEBI:.0f} MiB open",
            grown / MEBI,
            (room * (1 + bool(frontends)) + SLACK * max(frontends, 1)) / MEBI,
            "MiB",
        ),
        at_most("answers that are neither 200 nor a refusal", odd + (not alive), 0),
        at_least("bodies that were taken", seen["200"] + seen["half-sent"], 4),
        at_least("bodies that were refused", seen["503"] + seen["429"], bodies // 4),
        at_least("served afterwards", seen["afterwards"], 1),
    ]
