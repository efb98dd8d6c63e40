"""A worker that is stopped (SIGSTOP) is noticed by its silence, and replaced; nothing is lost.

The supervisor misses its heartbeats for ``hung_s`` and kills its fork server, so that the next one
is a new process. Meanwhile patient requests wait and short deadlines get 504 on time. A pause
shorter than that costs time only. It fails when heartbeats are not checked, when a
deadline needs the worker to be noticed, or when what waits is forgotten with it.
"""

import asyncio
import os
import signal
import time

from crowd import Crowd
from family import stat_of
from finding import Finding, at_least, at_most
from instance import QUEUED, Instance, instance
from traffic import eventually, play

HUNG_S = 6
STARTING_S = 30
"""What a new worker may take on a busy machine: it imports pyarrow and numba."""
DEADLINE_S = 0.5


async def _answers(crowd: Crowd) -> None:
    """Await that each client has been answered once more, and rightly."""
    before = crowd.seen["right"]
    await eventually(lambda: crowd.seen["right"] >= before + 8, 60)


async def _stop(running: Instance) -> tuple[Crowd, Crowd, dict[str, float]]:
    patient = Crowd(running, 8)
    hasty = Crowd(running, 4, tags=5000, timeout_ms=int(DEADLINE_S * 1e3))
    worker = running.worker
    async with patient, hasty:
        await _answers(patient)
        os.kill(worker, signal.SIGSTOP)
        await asyncio.sleep(1)
        os.kill(worker, signal.SIGCONT)
        await _answers(patient)
        kept = running.worker == worker
        os.kill(worker, signal.SIGSTOP)
        started = time.perf_counter()
        await eventually(lambda: stat_of(worker) is None, HUNG_S + 3 * STARTING_S)
        noticed = time.perf_counter() - started
        await _answers(patient)
        recovered = time.perf_counter() - started
        replaced = running.worker != worker
    return patient, hasty, {
        "kept": kept, "noticed": noticed, "recovered": recovered, "replaced": replaced
    }  # fmt: skip


def findings(running: Instance) -> list[Finding]:
    """Judge a running service, which has ``hung_s=HUNG_S``."""
    patient, hasty, told = play(_stop(running))
    print(dict(patient.seen), dict(hasty.seen))
    odd = hasty.seen["retryable"] - hasty.seen["504"]
    wrong = hasty.seen["wrong"] + hasty.seen["lost"] + abs(odd)
    return [
        *patient.findings(least=16),
        at_most("answers to short deadlines that are neither right nor a 504 to retry", wrong, 0),
        at_least("short deadlines that passed, each 504", hasty.seen["504"], 4),
        at_most(f"the longest of them, {DEADLINE_S} s being the deadline",
                max(hasty.seconds), DEADLINE_S + 2, "s"),
        at_least("the same worker after a pause of 1 s", told["kept"], 1),
        at_most(f"time until one that stays stopped is killed, hung_s={HUNG_S}",
                told["noticed"], HUNG_S + 5, "s"),
        at_most("time until all are answered again", told["recovered"], HUNG_S + STARTING_S, "s"),
        at_least("another worker then", told["replaced"], 1),
    ]  # fmt: skip


def run() -> list[Finding]:
    with instance(frontends=2, hung_s=HUNG_S, **QUEUED) as running:
        return findings(running)
