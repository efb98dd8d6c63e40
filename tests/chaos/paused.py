"""A pause (docker pause, a frozen control group, a suspended machine) is nobody's silence.

All processes are stopped for twice ``hung_s`` while a batch is on the device, and then the
supervisor alone. It fails when time that passed meanwhile counts against a process or a batch.
"""

import asyncio
import os
import signal

from finding import Finding, at_least, at_most
from instance import QUEUED, Instance, faulty, instance
from traffic import ask_once, block, play, post, tagged

HUNG_S = 2


async def _pause(processes: list[int]) -> None:
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(2 * HUNG_S)
    for pid in reversed(processes):
        os.kill(pid, signal.SIGCONT)


async def _paused(running: Instance) -> tuple[int, int, bool]:
    before = running.family
    held = await block(running)
    await _pause(before)
    await asyncio.sleep(HUNG_S / 2)  # for what is judged wrongly
    running.gate.unlink()
    answers = [(await held).status]
    await _pause([running.process.pid])
    await asyncio.sleep(HUNG_S / 2)
    answers += [(await ask_once(running, post(tagged(float(n))))).status for n in range(10)]
    return len(set(before) - set(running.family)), answers.count(200), "hang" in running.log_text()


def run(frontends: int = 0) -> list[Finding]:
    with instance(faulty(frontends), frontends=frontends, hung_s=HUNG_S, **QUEUED) as running:
        ended, right, hung = play(_paused(running))
    return [
        at_most(f"processes replaced after pauses of {2 * HUNG_S} s, hung_s={HUNG_S}", ended, 0),
        at_least("answers, of 11, one of them on the device meanwhile", right, 11),
        at_most("processes or devices said to hang", hung, 0),
    ]
