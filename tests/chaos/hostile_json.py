"""Small bodies that are 32 MiB of JSON the fast reader gives up on take neither memory nor time.

Four clients, an address each, post the same body at once. Parsed as a whole, each took 1.2 GiB that
no account held and most of which stayed, and let no other thread run for seconds: it fails when
objects are made of more than a piece at once, when faults are worded that nobody reads, or when a
reader goes on after the deadline.
"""

import asyncio
import gzip
import time
from collections import Counter

from finding import Finding, at_least, at_most
from instance import MEBI, Instance, instance
from traffic import Connection, ask_once, play, post, tagged

ROOM = 512 * MEBI
SLACK = 320 * MEBI
"""As for open bodies, and what pools and the allocator keep of one kind while the next comes."""
TIMEOUT_S = 2.0
LATE_S = 1.0
BUSY_S = 3.0
CLIENTS = 4
PLAIN = b'{"prediction":[1],"target":[1]}'


def many(element: bytes, size: int) -> bytes:
    return b",".join([element] * (size // (len(element) + 1)))


def of_series(*series: bytes) -> bytes:
    return b'{"series":[' + b",".join(series) + b"]}"


def one_series(element: bytes, size: int) -> bytes:
    """One series of two sides; beside it one without an id, so that it is uncommon."""
    side = many(element, size // 2)
    return of_series(b'{"id":1,"prediction":[%b],"target":[%b]}' % (side, side), PLAIN)


def bodies(size: int) -> dict[str, bytes]:
    """Return bodies of a little less than ``size`` bytes."""
    size -= 200
    return {
        "empty objects": of_series(many(b"{}", size)),
        "nested objects": of_series(many(b'{"a":{}}', size)),
        "nested lists": of_series(many(b"[[]]", size)),
        "nulls": of_series(many(b"null", size)),
        "deep lists": b"[" * (size // 2) + b"]" * (size // 2),
        "fields": of_series(b"{" + b",".join(b'"%07d":0' % i for i in range(size // 12)) + b"}"),
        "one field": of_series(b"{" + many(b'"a":0', size) + b"}"),
        "an id of escapes": of_series(b'{"id":"' + b"\\u0001" * (size // 6) + b'"}'),
        "losses": b'{"series":[],"losses":[' + many(b'"mae"', size) + b"]}",
        "missing numbers": b'{"missing":"skip",' + one_series(b"null", size)[1:],
        "a series of texts": one_series(b'"x"', size),
        "digits": of_series(b"1" * size),
        "integers of 4000 digits": one_series(b"1" * 4000, size),
        "rows": one_series(b"[1]", size),
        "ids in one of two": of_series(many(PLAIN, size), b'{"id":1,' + PLAIN[1:]),
    }


async def _waits(running: Instance, waits: list[float]) -> None:
    """Ask for /livez all the time, and note how long each answer took."""
    connection = await Connection.open(running, "127.0.0.9")
    while True:
        answer = await connection.ask(b"GET /livez HTTP/1.1\r\nHost: chaos\r\n\r\n")
        assert answer.status == 200
        waits.append(answer.seconds)
        await asyncio.sleep(0.01)


async def _attack(running: Instance, body: bytes, seen: Counter[str]) -> tuple[float, float]:
    """Return the longest wait for /livez meanwhile, and for an answer after its deadline."""
    request = post(body, timeout_ms=int(TIMEOUT_S * 1e3), content_encoding="gzip")
    waits: list[float] = []
    asking = asyncio.create_task(_waits(running, waits))
    posts = (ask_once(running, request, f"127.0.0.{n + 2}") for n in range(CLIENTS))
    answers = await asyncio.gather(*posts)
    asking.cancel()
    seen.update(str(answer.status) for answer in answers)
    return max(waits, default=60.0), max(answer.seconds for answer in answers) - TIMEOUT_S


async def _idle_after(running: Instance) -> float:
    """Return how long the processor stays busy for nobody."""
    used = [running.cpu_seconds]
    start = time.perf_counter()
    for _ in range(300):
        await asyncio.sleep(0.1)
        used.append(running.cpu_seconds)
        if used[-1] - used[-2] < 0.02:
            break
    return time.perf_counter() - start


def run(size: int = 32 * MEBI) -> list[Finding]:
    seen: Counter[str] = Counter()
    waits, late, busy = {}, 0.0, 0.0
    with instance(max_json_bytes=size, max_body_bytes=size, max_open_bytes=ROOM) as running:
        play(ask_once(running, post(tagged(1.0))))
        running.reset_peak()
        before = running.resident_bytes
        for name, body in bodies(size).items():
            waits[name], after = play(_attack(running, gzip.compress(body, 1), seen))
            late, busy = max(late, after), max(busy, play(_idle_after(running)))
            print(f"{name}: /livez waited {waits[name]:.3f} s, {dict(seen)}")
        grown = running.peak_bytes - before
        served = play(ask_once(running, post(tagged(1.0)))).status
    odd = sum(
        n
        for status, n in seen.items()
        if status not in {"200", "400", "413", "422", "429", "503", "504"}
    )
    return [
        at_most(
            f"growth of the peak with {CLIENTS} uncommon bodies of {size / MEBI:.0f} MiB of JSON",
            grown / MEBI,
            (ROOM + SLACK) / MEBI,
            "MiB",
        ),
        at_most("the longest wait for /livez beside them", max(waits.values()), 1, "s"),
        at_most("an answer to them after its deadline", late, LATE_S, "s"),
        at_most("work on them after their answers", busy, BUSY_S, "s"),
        at_most("answers that are no answer of the protocol", odd, 0),
        at_least("served afterwards", served == 200, 1),
    ]
