"""Want of memory or threads is 503 while it lasts, and nothing of it stays.

The address space of the service is limited to little more than it has: threads cannot be started,
bodies, batches and joined gradients cannot be held. Afterwards all is as before. And one
client whose bodies take long to read leaves a thread to another. It fails when a place is not given back,
when joining ends the device's thread, or when four requests hold all threads.
"""

import asyncio
import contextlib
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from finding import Finding, at_least, at_most
from instance import HERE, MEBI, QUEUED, Instance, instance
from traffic import ARROW, Connection, ask_once, play, post, tagged

ELEMENTS = 6 << 20
READ_S = 5
SLOW = HERE / "chaos" / "slow_codec.py"


def _large() -> bytes:
    numbers = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(ELEMENTS)), 1024)
    batch = pa.record_batch({"prediction": numbers, "target": numbers})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return post(sink.getvalue().to_pybytes(), ARROW, "gradients=true")


def _size(running: Instance) -> int:
    """Return the bytes of the address space in use."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(re.findall(r"VmSize:\s+(\d+)", status)[0]) << 10


def _limit(running: Instance, most: int = resource.RLIM_INFINITY) -> None:
    resource.prlimit(running.process.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


async def _statuses(running: Instance, requests: list[bytes]) -> Counter[int]:
    seen: Counter[int] = Counter()
    for request in requests:
        with contextlib.suppress(OSError):
            seen[(await ask_once(running, request)).status] += 1
    return seen


async def _short(running: Instance) -> tuple[Counter[int], Counter[int]]:
    threaded, large = post(tagged(1.0, 20_000)), _large()
    during: Counter[int] = Counter()
    size = _size(running)
    _limit(running, size + 6 * MEBI)  # less than a thread's stack
    during += await _statuses(running, [threaded] * 10)
    for mebi in range(800, 0, -80):
        _limit(running, size + mebi * MEBI)
        during += await _statuses(running, [large])
    _limit(running)
    after = await _statuses(running, [threaded, large, post(tagged(1.0))] * 3)
    return during, after


async def _beside_a_hog(running: Instance) -> tuple[int, float]:
    hog = [await Connection.open(running, "127.0.0.2") for _ in range(12)]
    held = [one.begin(post(tagged(1.0, MEBI // 4))) for one in hog]
    await asyncio.sleep(1)
    started = time.perf_counter()
    answer = await ask_once(running, post(tagged(2.0, 20_000)))
    seconds = time.perf_counter() - started
    for one, future in zip(hog, held, strict=True):
        future.cancel()
        one.hang_up()
    return answer.status, seconds


def run() -> list[Finding]:
    with instance(batch_elements=1 << 17, **QUEUED) as running:
        during, after = play(_short(running))
    print(dict(during), dict(after))
    with instance(
        (sys.executable, SLOW, "serve"), environment={"CHAOS_READ_S": str(READ_S)}
    ) as running:
        status, seconds = play(_beside_a_hog(running))
    other = sum(during.values()) - during[200] - during[503]
    return [
        at_least("requests refused with 503 for want of memory or threads", during[503], 14),
        at_most("answers to others that are not 200", other, 0),
        at_most("requests that fail once there is memory, of 9", 9 - after[200], 0),
        at_most("a larger body beside a client that takes all threads it gets: not 200",
                abs(status - 200), 0),
        at_most("time for it", seconds, READ_S / 2, "s"),
    ]  # fmt: skip
