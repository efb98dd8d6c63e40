"""Nothing grows: memory, descriptors and threads have no slope in the second half of a soak.

Mixed load the whole time: small JSON, Arrow with gradients, large bodies, bad bodies, clients that
hang up, deadlines that pass. The same check is then put to a service with a planted leak of 16 KiB
a request (``leaky.py``), and must fail there: a check that cannot fail is a defect.
"""

import asyncio
import itertools
import random
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from finding import Finding, at_least, at_most
from instance import MEBI, SERVE, Instance, instance, supervised
from traffic import ARROW, Connection, play, post, tagged
from wire import stream

LEAKY = Path(__file__).with_name("leaky.py")
GROWTH = {"memory": (24.0, "MiB"), "descriptors": (4.0, ""), "threads": (1.0, "")}
"""What the fitted line may rise by over the second half, whatever its length."""


def mixture(rng: random.Random) -> list[tuple[bytes, int]]:
    """Requests and the status that each must get."""
    column = pa.array([[1.0] * rng.randint(1, 200) for _ in range(50)])
    table = pa.table({"prediction": column, "target": column})
    arrow = post(stream(table), ARROW, "losses=mae,smape&gradients=true&missing=skip")
    return [
        (post(tagged(1.0, 24)), 200),
        (post(tagged(2.0, 24, gradients=True)), 200),
        (arrow, 200),
        (post(tagged(3.0, 30_000)), 200),
        (post(b'{"series": [{"prediction": [1'), 400),
        (post(tagged(4.0), query="gradients=true"), 422),
        (post(stream(table)[:-100], ARROW), 400),
    ]


async def _load(running: Instance, seconds: float, seen: dict[str, int]) -> None:
    end = time.perf_counter() + seconds
    rng = random.Random(9)
    requests = mixture(rng)

    async def client(n: int) -> None:
        connection = await Connection.open(running, f"127.0.0.{n + 2}")
        for k in itertools.count(n):
            if time.perf_counter() > end:
                break
            request, status = requests[k % len(requests)]
            if k % 23 == 0:  # hang up amid a body, or while the answer is made
                connection.begin(request[: rng.choice((len(request) // 2, len(request)))])
                await asyncio.sleep(0.001)
                connection.hang_up()
                connection = await Connection.open(running, f"127.0.0.{n + 2}")
                continue
            answer = await connection.ask(request)
            seen["asked"] += 1
            seen["odd"] += answer.status != status
            await asyncio.sleep(0.002)
        connection.hang_up()

    await asyncio.gather(*(client(n) for n in range(8)))


async def _watched(running: Instance, seconds: float):
    seen = {"asked": 0, "odd": 0}
    samples: list[tuple[float, ...]] = []
    load = asyncio.create_task(_load(running, seconds, seen))
    started = time.perf_counter()
    while not load.done():
        samples.append(
            (
                time.perf_counter() - started,
                running.resident_bytes / MEBI,
                running.descriptors,
                running.threads,
            )
        )
        await asyncio.sleep(max(0.2, seconds / 300))
    await load
    return np.array(samples), seen


def growths(samples: np.ndarray) -> list[float]:
    """What a line fitted to the second half rises by."""
    half = samples[len(samples) // 2 :]
    width = half[-1, 0] - half[0, 0]
    return [float(np.polyfit(half[:, 0], half[:, k], 1)[0] * width) for k in (1, 2, 3)]


def _soak(command, frontends: int, seconds: float) -> tuple[list[Finding], dict[str, int]]:
    with instance(command, frontends=frontends) as running:
        samples, seen = play(_watched(running, seconds))
        seen["odd"] += not running.alive
    minutes = f"{seconds / 60:.3g} min"
    findings = [
        at_most(f"rise of {name} over the second half of {minutes}", grown, limit, unit)
        for (name, (limit, unit)), grown in zip(GROWTH.items(), growths(samples), strict=True)
    ]
    return findings, seen


def run(seconds: float = 1200, leaky_seconds: float = 30, frontends: int = 0) -> list[Finding]:
    leaky = supervised("frontend", LEAKY) if frontends else (sys.executable, LEAKY, "serve")
    findings, seen = _soak(SERVE, frontends, seconds)
    control, _ = _soak(leaky, frontends, leaky_seconds)
    return [
        *findings,
        at_most("answers that were not as expected", seen["odd"], 0),
        at_least("answers", seen["asked"], seconds * 100),
        at_least("positive control: checks that a planted leak fails, of memory and descriptors",
                 sum(not one.passed for one in control[:2]), 2),
    ]  # fmt: skip
