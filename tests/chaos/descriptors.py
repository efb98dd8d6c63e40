"""A server that runs out of file descriptors lives, and serves again when connections go away.

The server may have 64 descriptors; 300 connections come and stay for some seconds. It fails when
accepting gives up for good, when a file that cannot be opened ends the process, or when the server
burns its processor in a loop of failing accepts afterwards.

Behind front ends, connections take all descriptors of each while the worker is killed. The next one
is connected to, which takes a descriptor, and no client hangs up before. It fails when a front end
has none for that, or does not try again. Then the supervisor has none left when a front end is
killed: it must live, and replace it once it has.
"""

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import time
from collections.abc import Iterator

import family
from finding import Finding, at_least, at_most
from instance import QUEUED, Instance, front_of, instance
from traffic import Connection, ask_once, eventually, play, post, tagged

NOFILE = 64


async def _exhaust(running: Instance, connections: int, seconds: float):
    held = []
    for _ in range(connections):
        with contextlib.suppress(OSError):
            held.append(await asyncio.wait_for(Connection.open(running), 5))
    await asyncio.sleep(1)
    full = running.descriptors
    answered = 0
    for connection in held[:10]:  # those that got in are served
        with contextlib.suppress(ConnectionError, TimeoutError):
            answered += (await connection.ask(post(tagged(1.0)), 5)).status == 200
    await asyncio.sleep(seconds)
    for connection in held:
        connection.hang_up()
    gone = time.perf_counter()
    while time.perf_counter() < gone + 20:
        with contextlib.suppress(OSError, TimeoutError):
            if (await ask_once(running, post(tagged(1.0)), timeout=1)).status == 200:
                return full, answered, time.perf_counter() - gone
        await asyncio.sleep(0.02)
    return full, answered, float("nan")


async def connection_to_each(running: Instance) -> dict[str, Connection]:
    """Return a connection to each front end; who accepts is chance."""
    found: dict[str, Connection] = {}
    for _ in range(500):
        connection = await Connection.open(running)
        answer = await connection.ask(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        if found.setdefault(front_of(answer.headers), connection) is not connection:
            connection.hang_up()
        if len(found) == running.fronts:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("one front end accepts everything")


@contextlib.contextmanager
def at_most_now(pid: int, more: int) -> Iterator[int]:
    """Let a process open just so many descriptors more, or fill the gaps that there are.

    The limit is one of numbers: below that of the last open descriptor, what the process closes
    there it could not open again. With ``more`` 0 there are no gaps either.

    Yields:
        How many it may have in all.
    """
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    numbers = family.descriptor_numbers(pid)
    first_free = next(number for number in itertools.count() if number not in numbers)
    limit = max(max(numbers) + 1, len(numbers) + more) if more else first_free
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield limit
    finally:
        if family.stat_of(pid):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


async def _meets(connection: Connection, asked: bytes) -> bool:
    """Ask again while refused: a request may still have met the worker that was killed."""
    for _ in range(120):
        if (answer := await connection.ask(asked)).status != 503:
            break
        await asyncio.sleep(0.5)
    print(answer.status, answer.body)
    return answer.status == 200


async def _meet_without(running: Instance) -> tuple[float, float]:
    """Return answers, one asked for of each front end, and descriptors that were free at most."""

    def used() -> int:
        return sum(map(family.descriptors, running.frontends))

    before = used()
    known = await connection_to_each(running)
    # What a connection gives back after the newcomers have come, nobody would take.
    await eventually(lambda: used() <= before + running.fronts)
    with contextlib.ExitStack() as stack:
        limits = {pid: stack.enter_context(at_most_now(pid, 8)) for pid in running.frontends}

        def most_free() -> int:
            return max(limit - family.descriptors(pid) for pid, limit in limits.items())

        newcomers: list[asyncio.Task[Connection]] = []
        for _ in range(100):  # one that is full takes and drops them all until the other comes
            newcomers += [asyncio.create_task(Connection.open(running)) for _ in range(20)]
            await asyncio.sleep(0.2)
            if (free := most_free()) <= 1:
                break
        os.kill(await asyncio.to_thread(lambda: running.worker), signal.SIGKILL)
        asked = post(tagged(1.0), timeout_ms=20_000)
        met = await asyncio.gather(*(_meets(one, asked) for one in known.values()))
        for one in await asyncio.gather(*newcomers, return_exceptions=True):
            if isinstance(one, Connection):
                one.hang_up()
    return sum(met), free


def findings(running: Instance) -> list[Finding]:
    """Judge a running service of several front ends that sends everything to the worker."""
    answered, free = play(_meet_without(running))
    return [
        at_most("descriptors that a front end had left", free, 1),
        at_least("front ends that met the next worker then", answered, running.fronts),
    ]


async def _replaced_late(running: Instance) -> tuple[bool, bool]:
    """Return whether a front end was replaced without descriptors, and with."""
    victim = min(running.frontends)
    with at_most_now(running.process.pid, 0):
        os.kill(victim, signal.SIGKILL)
        await asyncio.sleep(2)
        early = running.alive and len(running.frontends) == running.fronts
    await eventually(lambda: len(running.frontends) == running.fronts)
    await asyncio.to_thread(running.await_ready)
    return early, running.alive


def _behind(frontends: int) -> list[Finding]:
    with instance(frontends=frontends, **QUEUED) as running:
        met = findings(running)
        early, late = play(_replaced_late(running))
    return [
        *met,
        at_most("front ends started by a supervisor without descriptors", early, 0),
        at_least("alive, and all front ends there, once it had some", late, 1),
    ]


def run(connections: int = 300, seconds: float = 3, frontends: int = 0) -> list[Finding]:
    if frontends:
        return _behind(frontends)
    with instance(nofile=NOFILE) as running:
        full, answered, recovered = play(_exhaust(running, connections, seconds))
        alive = running.alive
        used = running.descriptors if alive else 0
        cpu = running.cpu_seconds
        time.sleep(1)
        busy = running.cpu_seconds - cpu
    return [
        at_least(f"descriptors in use, of {NOFILE}", full, NOFILE - 2),
        at_least("requests served on 10 connections that got in", answered, 10),
        at_most("time until served again after the connections went", recovered, 5, "s"),
        at_most("descriptors left afterwards", used, 40),
        at_most("processor time of an idle second afterwards", busy, 0.2, "s"),
        at_least("still alive", alive, 1),
    ]
