"""What nobody waits for is not computed: clients that hung up, deadlines that passed.

The ledger of the device is the witness. The patient requests are in it, which shows that it is
kept. It fails when a disconnect is not noticed while queued, or a deadline only afterwards.
"""

import asyncio
import itertools
from collections import defaultdict

from finding import Finding, at_most
from instance import QUEUED, Instance, faulty, instance
from traffic import Connection, block, eventually, play, post, queued, tagged

ELEMENTS = 3


async def _crowd(running: Instance, each: int) -> list[int]:
    first = await block(running)
    connections = [await Connection.open(running) for _ in range(3 * each)]
    patient, gone, late = (connections[i::3] for i in range(3))
    waiting = [
        connection.begin(post(tagged(1000 + n, ELEMENTS))) for n, connection in enumerate(patient)
    ]
    for n, connection in enumerate(gone):
        connection.begin(post(tagged(2000 + n, ELEMENTS)))
    expiring = [
        connection.begin(post(tagged(3000 + n, ELEMENTS), timeout_ms=500))
        for n, connection in enumerate(late)
    ]
    sure = 2 * each * ELEMENTS
    await eventually(lambda: running.metric("loss_scoring_queued_elements") >= sure)
    for connection in gone:
        connection.hang_up()
    statuses = [answer.status for answer in await asyncio.gather(*expiring)]
    await queued(running, each * ELEMENTS)
    running.gate.unlink()
    await asyncio.gather(first, *waiting)
    for connection in connections:
        connection.hang_up()
    return statuses


def findings(running: Instance, each: int) -> list[Finding]:
    """Judge a running service with a faulty device."""
    statuses = play(_crowd(running, each))
    computed: dict[int, int] = defaultdict(int)
    for first, length in itertools.chain.from_iterable(running.ledger()):
        computed[int(first) // 1000] += length
    return [
        at_most(f"elements computed for {each} cancelled requests", computed[2], 0),
        at_most(f"elements computed for {each} expired requests", computed[3], 0),
        at_most("expired requests not answered 504", each - statuses.count(504), 0),
        at_most(
            "elements of patient requests missing from the ledger", each * ELEMENTS - computed[1], 0
        ),
    ]


def run(each: int = 100, frontends: int = 0) -> list[Finding]:
    with instance(faulty(frontends), frontends=frontends, batch_elements=50, **QUEUED) as running:
        return findings(running, each)
