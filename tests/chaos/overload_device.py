"""At three times what the device can carry, the device is never idle and refusals come at once.

As ``overload``, with a device of a known speed: every batch takes 50 ms and holds at most ten
requests. So the figures are those of queue and refusal, whatever else the machine does. Fails when
refused requests reach the device, when batches form too small, or when a refusal is queued.
"""

from finding import Finding, at_least, at_most, quantile
from instance import QUEUED, Instance, faulty, instance
from overload import FACTOR, capacity, offer
from traffic import play, post, tagged

ELEMENTS = 1000


async def _both(running: Instance, seconds: float):
    body = post(tagged(1.5, ELEMENTS), timeout_ms=5000)
    before = await capacity(running, body, seconds / 2, each=3)
    seen, unsent = await offer(running, body, FACTOR * before, seconds)
    return before, seen, unsent


def run(seconds: float = 10) -> list[Finding]:
    with instance(
        faulty(),
        environment={"CHAOS_BATCH_S": "0.05"},
        batch_elements=10 * ELEMENTS,
        max_elements=10 * ELEMENTS,
        max_queued_elements=50 * ELEMENTS,
        **QUEUED,
    ) as running:
        able, seen, unsent = play(_both(running, seconds))
        alive = running.alive
    elapsed = seen[-1][0]
    refusals = seen[503] + seen[429]
    offered = sum(len(seen[status]) for status in (200, 429, 503, 504, 0)) / elapsed
    lost = len(seen[504]) + len(seen[0]) + (not alive)
    return [
        at_least(f"goodput at {FACTOR}x load, of {able:.0f}/s",
                 len(seen[200]) / elapsed / able * 100, 90, "%"),
        at_most("p99 of the time to a refusal", quantile(refusals, 0.99) * 1e3, 50, "ms"),
        at_most("p99 of the time to an answer", quantile(seen[200], 0.99) * 1e3, 1000, "ms"),
        at_most("accepted requests that missed their deadline or were lost", lost, 0),
        at_least("load really offered, in capacities", offered / able, 2.4, "x"),
        at_most("requests the generator could not send", unsent, 0),
    ]  # fmt: skip
