"""What nobody waits for is not computed: clients that hung up, deadlines that passed.

The ledger of the device is the witness. The patient requests are in it, which shows that it is
kept. It fails when a disconnect is not noticed while queued, or a deadline only afterwards.
"""

import asyncio
import tempfile
from collections import defaultdict
from pathlib import Path

from finding import Finding, at_most
from instance import FAULTY, Instance, instance
from traffic import Connection, eventually, play, post, tagged

BLOCK = 777.0
ELEMENTS = 3


async def _crowd(running: Instance, folder: Path, each: int) -> list[int]:
    blocker = await Connection.open(running)
    first = blocker.begin(post(tagged(BLOCK)))
    await eventually((folder / "blocked").exists)
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
    queued = "loss_scoring_queued_elements"
    await eventually(lambda: running.metric(queued) >= 2 * each * ELEMENTS)
    for connection in gone:
        connection.hang_up()
    statuses = [answer.status for answer in await asyncio.gather(*expiring)]
    await eventually(lambda: running.metric(queued) == each * ELEMENTS)
    (folder / "gate").unlink()
    await asyncio.gather(first, *waiting)
    for connection in connections:
        connection.hang_up()
    return statuses


def run(each: int = 100) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "gate").touch()
        with instance(
            FAULTY,
            environment={"CHAOS_DIR": name},
            inline_elements=0,
            idle_inline_elements=0,
            batch_elements=50,
        ) as running:
            statuses = play(_crowd(running, folder, each))
        computed: dict[int, int] = defaultdict(int)
        for line in (folder / "ledger").read_text().splitlines():
            value, length = line.split()
            computed[int(float(value)) // 1000] += int(length)
    return [
        at_most(f"elements computed for {each} cancelled requests", computed[2], 0),
        at_most(f"elements computed for {each} expired requests", computed[3], 0),
        at_most("expired requests not answered 504", each - statuses.count(504), 0),
        at_most(
            "elements of patient requests missing from the ledger", each * ELEMENTS - computed[1], 0
        ),
    ]
