"""A request that ends the process that scores it is found among 32 and fails alone.

All 32 are in one batch, which ends its worker; each is then scored by itself, and who ends a second
one was alone. It fails when all of a batch that crashed get 500, when the culprit is tried for
ever, or when the service does not go on.
"""

import asyncio

import orjson
from failing_device import tally, together
from finding import Finding, at_least, at_most
from instance import QUEUED, Instance, faulty, instance
from traffic import Answer, ask_once, play, post, tagged

DEADLY = 999.0


async def _among(running: Instance, tags: list[float]) -> tuple[list[Answer], list[Answer]]:
    answers = await together(running, tags, 2)
    afterwards = [ask_once(running, post(tagged(tag))) for tag in tags if tag != DEADLY]
    return answers, await asyncio.gather(*afterwards)


def findings(running: Instance, requests: int = 32) -> list[Finding]:
    """Judge a running service with a faulty device."""
    tags = [DEADLY if n == 13 else float(200 + n) for n in range(requests)]
    answers, afterwards = play(_among(running, tags))
    seen = tally(tags, answers)
    others = [tag for tag in tags if tag != DEADLY]
    convicted = orjson.loads(answers[13].body).get("detail", "")
    batches = [[first for first, _ in batch] for batch in running.ledger()]
    deadly = [batch for batch in batches if DEADLY in batch]
    return [
        at_least(f"right answers beside one deadly of {requests}", seen["right"], requests - 1),
        at_least("deadly requests answered 500", seen["500"], 1),
        at_least("of them named as the only suspect", "alone" in convicted, 1),
        at_least("requests in the batch that died first", max(map(len, deadly)), 2),
        at_most("workers that it cost", len(deadly), 2),
        at_least("right answers afterwards", tally(others, afterwards)["right"], requests - 1),
    ]


def run() -> list[Finding]:
    with instance(faulty(2), frontends=2, **QUEUED) as running:
        return findings(running)
