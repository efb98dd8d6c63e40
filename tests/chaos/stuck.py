"""SIGTERM ends the process in its budget, whatever a thread does: exit status 0.

A thread reads a body for ten minutes, though its request has had its 504, and the collector of
traces takes connections and says nothing. It fails when the interpreter joins its threads, or an
exporter may try for as long as it likes.
"""

import asyncio
import socket
import sys
import time

from finding import Finding, at_most
from instance import HERE, MEBI, Instance, instance, supervised
from traffic import ask_once, play, post, tagged

SHUTDOWN_S = 3
SLOW = HERE / "chaos" / "slow_codec.py"


async def _end(running: Instance) -> tuple[list[int], float, float]:
    large = tagged(1.0, MEBI // 4)
    asked = [ask_once(running, post(large, timeout_ms=300)) for _ in range(2)]
    statuses = [answer.status for answer in await asyncio.gather(*asked)]
    running.signal()
    started = time.perf_counter()
    code = await asyncio.to_thread(running.exit_code, SHUTDOWN_S + 30)
    return statuses, code, time.perf_counter() - started


def run(frontends: int = 0) -> list[Finding]:
    with socket.create_server(("127.0.0.1", 0)) as collector:
        environment = {
            "CHAOS_READ_S": "600",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.getsockname()[1]}",
        }
        slow = supervised("frontend", SLOW) if frontends else (sys.executable, SLOW, "serve")
        with instance(
            slow,
            environment=environment,
            frontends=frontends,
            shutdown_s=SHUTDOWN_S,
        ) as running:
            statuses, code, seconds = play(_end(running))
    return [
        at_most("requests not answered 504 at their deadline", 2 - statuses.count(504), 0),
        at_most("exit code, with threads that read on and a dead collector", abs(code), 0),
        at_most(f"time to exit then, shutdown_s={SHUTDOWN_S}", seconds, SHUTDOWN_S + 3, "s"),
    ]
