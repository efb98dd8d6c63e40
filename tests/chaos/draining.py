"""SIGTERM loses nothing that was accepted, and does not wait for those who never finish.

Accepted is what was in the queue when the signal came (the device is held, the metrics tell). A
half-sent body is open meanwhile; without a limit it would hold the process for ever, and who sends
it gets a 503 with Retry-After. Under plain load a connection may be closed without an answer, never amid
one. The second signal means now.

A device that hangs holds nothing up but its own requests. A signal at any moment of the start ends
the service: it is not swallowed, and once it listens there is nothing to be cut off.
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections import Counter
from collections.abc import Sequence

import orjson
from finding import Finding, at_least, at_most
from instance import MEBI, QUEUED, SERVE, Instance, faulty, instance
from traffic import Answer, Connection, block, head, play, post, queued, tagged

SHUTDOWN_S = 3


async def _accepted(running: Instance, requests: int) -> tuple[Counter[str], float, float]:
    stuck = await Connection.open(running)
    never = stuck.begin(head(MEBI) + b'{"series":')
    first = await block(running)
    connections = [await Connection.open(running) for _ in range(requests)]
    waiting = [c.begin(post(tagged(float(n), 10))) for n, c in enumerate(connections)]
    await queued(running, 10 * requests)
    running.signal()
    started = time.perf_counter()
    await asyncio.sleep(0.3)
    running.gate.unlink()
    await first
    seen: Counter[str] = Counter()
    for n, result in enumerate(await asyncio.gather(*waiting, return_exceptions=True)):
        right = (
            not isinstance(result, BaseException)
            and result.status == 200
            and orjson.loads(result.body)["losses"]["mae"] == [float(n)]
        )
        seen["right" if right else "lost"] += 1
    code = await asyncio.to_thread(running.exit_code, SHUTDOWN_S + 10)
    seconds = time.perf_counter() - started
    with contextlib.suppress(OSError):
        seen["told"] = _come_back(await asyncio.wait_for(never, 5))
    return seen, code, seconds


def _come_back(answer: Answer) -> bool:
    """Tell whether an answer says that the request may be sent again, and later."""
    kind, after = (answer.headers.get(name) for name in ("content-type", "retry-after"))
    document = orjson.loads(answer.body) if kind == "application/problem+json" else {}
    return (
        answer.status == 503
        and after is not None
        and document.get("retryable") is True
        and document.get("request_id") == answer.headers.get("x-request-id")
    )


async def _under_load(running: Instance, clients: int) -> tuple[Counter[str], float]:
    seen: Counter[str] = Counter()

    async def client(n: int) -> None:
        tag = float(n + 1)
        connection = await Connection.open(running)
        try:
            while True:
                answer = await connection.ask(post(tagged(tag, 1000)))
                if answer.status == 200:
                    right = orjson.loads(answer.body)["losses"]["mae"] == [tag]
                    seen["right" if right else "wrong"] += 1
                else:
                    seen["refused" if answer.status == 503 else "odd"] += 1
        except OSError:
            seen["cut" if connection.part_of_an_answer else "closed"] += 1

    clients_ = [asyncio.create_task(client(n)) for n in range(clients)]
    await asyncio.sleep(1)
    running.signal()
    await asyncio.wait_for(asyncio.gather(*clients_), 30)
    return seen, await asyncio.to_thread(running.exit_code, SHUTDOWN_S + 10)


async def _twice(running: Instance) -> float:
    connection = await Connection.open(running)
    never = connection.begin(head(MEBI) + b'{"series":')
    await asyncio.sleep(0.3)
    running.signal()
    await asyncio.sleep(0.5)
    started = time.perf_counter()
    alive = running.alive  # else the second signal proves nothing
    running.signal()
    await asyncio.to_thread(running.exit_code, SHUTDOWN_S + 10)
    never.cancel()
    return time.perf_counter() - started if alive else float("nan")


async def _hung(running: Instance) -> tuple[float, float]:
    await block(running)  # and nobody opens the gate
    running.signal()
    started = time.perf_counter()
    code = await asyncio.to_thread(running.exit_code, SHUTDOWN_S + 10)
    return code, time.perf_counter() - started


def _ended_amid_the_start(delay: float, frontends: int) -> bool:
    """Tell whether a service ends as it should; the delay of several counts from its listening."""
    environment = os.environ | {"LOSS_SCORING_PORT": "0", "LOSS_SCORING_FRONTENDS": str(frontends)}
    with subprocess.Popen(SERVE, env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while frontends and b"listening" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(delay)
        process.terminate()
        try:
            _, log = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            return False
    if process.returncode not in ((0,) if frontends else (0, -15)):  # -15 if it is imports yet
        print(delay, frontends, process.returncode, log.decode(errors="replace"))
        return False
    return True


def starting(delays: Sequence[float]) -> list[Finding]:
    """Judge services that are ended amid their start."""
    tried = [(delay, frontends) for delay in delays for frontends in (0, 1)]
    ended = sum(_ended_amid_the_start(*one) for one in tried)
    return [at_least(f"clean ends of {len(tried)} amid the start", ended, len(tried))]


def hung(running: Instance) -> list[Finding]:
    """Judge a service with a faulty device and ``shutdown_s=SHUTDOWN_S``; it ends."""
    code, seconds = play(_hung(running))
    return [
        at_most("exit code while the device hangs", abs(code), 0),
        at_most(f"time to exit then, shutdown_s={SHUTDOWN_S}", seconds, SHUTDOWN_S + 3, "s"),
    ]


def accepted(running: Instance, requests: int) -> list[Finding]:
    """Judge a service with a slow faulty device and ``shutdown_s=SHUTDOWN_S``; it ends."""
    seen, code, seconds = play(_accepted(running, requests))
    return [
        at_most(f"accepted requests lost on SIGTERM, of {requests}", seen["lost"], 0),
        at_most("exit code, with a half-sent body open", abs(code), 0),
        at_least("its sender gets a 503 with Retry-After", seen["told"], 1),
        at_most("stack traces in the log", running.log_text().count("Traceback"), 0),
        at_most(f"time to exit, shutdown_s={SHUTDOWN_S}", seconds, SHUTDOWN_S + 2, "s"),
    ]


def twice(running: Instance, most_s: float = 1) -> list[Finding]:
    """Judge a service with a long ``shutdown_s``; it ends."""
    return [at_most("time from a second SIGTERM to the exit", play(_twice(running)), most_s, "s")]


def run(requests: int = 32, clients: int = 32) -> list[Finding]:
    slow = {"CHAOS_BATCH_S": "0.02"}
    with instance(
        faulty(), environment=slow, batch_elements=10, shutdown_s=SHUTDOWN_S, **QUEUED
    ) as running:
        held = accepted(running, requests)
    with instance(shutdown_s=SHUTDOWN_S) as running:
        loaded, code = play(_under_load(running, clients))
    print(dict(loaded))
    with instance(shutdown_s=30) as running:
        at_once = twice(running)
    with instance(faulty(), shutdown_s=SHUTDOWN_S, **QUEUED) as running:
        hanging = hung(running)
    return [
        *held,
        at_most("answers cut or wrong on SIGTERM under load",
                loaded["cut"] + loaded["wrong"] + loaded["odd"] + abs(code), 0),
        at_least("answers before it", loaded["right"], clients),
        *at_once,
        *hanging,
        *starting([0.2, 0.5, 1, 1.5, 2, 2.5, 3, 4]),
    ]  # fmt: skip
