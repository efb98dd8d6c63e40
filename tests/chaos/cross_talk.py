"""Nobody gets another's answer, while 30 % of the clients hang up.

Small requests go through batches here (inline_elements=0), as only those could be mixed up. A
mistake in a span, an answer sent to a connection whose request was dropped, or a buffer given
back too early makes wrong answers; a server that hangs makes missing ones.
"""

import asyncio
import random
from collections import Counter

import orjson
import pyarrow as pa
from finding import Finding, at_least, at_most
from instance import SERVE, Instance, instance
from traffic import ARROW, Answer, Connection, play, post
from wire import stream

# Three in four of these do so before any answer can have come (half a request, or no wait at all),
# so that however fast the machine is, 30 % of the requests are cancelled under way.
HANG_UP = 0.45


def request_of(tag: int, rng: random.Random) -> tuple[bytes, list]:
    """A request, and its ids, losses and gradients."""
    rows = [(f"{tag}/{k}", tag + k / 64, rng.randint(1, 50)) for k in range(rng.randint(1, 20))]
    series = [{"id": i, "prediction": [v] * n, "target": [0.0] * n} for i, v, n in rows]
    want = [
        [i for i, _, _ in rows],
        [v for _, v, _ in rows],
        [[1 / n] * n for _, _, n in rows],
    ]
    if tag % 2:
        body = {"series": series, "losses": ["mae"], "gradients": True}
        return post(orjson.dumps(body)), want
    return post(stream(pa.Table.from_pylist(series)), ARROW, "losses=mae&gradients=true"), want


def read(answer: Answer) -> list:
    if answer.headers["content-type"] == ARROW:
        table = pa.ipc.open_stream(answer.body).read_all()
        return [table[name].to_pylist() for name in ("id", "mae", "mae_gradient")]
    document = orjson.loads(answer.body)
    return [document["ids"], document["losses"]["mae"], document["gradients"]["mae"]]


async def _client(running: Instance, tags, seen: Counter[str]) -> None:
    connection = await Connection.open(running)
    for tag in tags:
        rng = random.Random(tag)
        request, want = request_of(tag, rng)
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
            right = answer.status == 200 and read(answer) == want
            seen["right" if right else "wrong"] += 1
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


def run(requests: int = 10_000, concurrency: int = 64, command=SERVE) -> list[Finding]:
    with instance(command, inline_elements=0, idle_inline_elements=0) as running:
        seen = play(_all(running, requests, concurrency))
        alive = running.alive
    return [
        at_most(f"wrong answers in {requests:,} tagged requests", seen["wrong"], 0),
        at_most("requests of patient clients without an answer", seen["missing"] + (not alive), 0),
        at_least("of them cancelled under way", seen["cancelled"] / requests * 100, 25, "%"),
        at_least("of them answered and compared", seen["right"] / requests * 100, 50, "%"),
    ]
