"""Sends bodies over keep-alive connections and judges every answer.

``findings`` is what the fuzzers of all formats have in common: whole bodies first, then damaged ones.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import orjson
from finding import Finding, at_least, at_most
from instance import MEBI, Instance
from traffic import Answer, Connection, play, post

REFUSED = {400, 413, 415, 422, 429, 503}
PROBLEM = {"type", "title", "status", "detail", "errors", "request_id", "retryable"}


class Barrage:
    """Counts what comes back.

    Args:
        kind: The media type.
        query: The options.
        sound: Judges an answer of 200: whether it may be the answer to this body.
    """

    def __init__(self, kind: str, query: str, sound: Callable[[bytes, Answer], bool]) -> None:
        self.kind, self.query, self.sound = kind, query, sound
        self.seen: Counter[str] = Counter()
        self.worst: list[tuple[str, bytes]] = []

    async def __call__(
        self, running: Instance, bodies: Iterable[bytes], connections: int = 8
    ) -> None:
        bodies = iter(bodies)
        await asyncio.gather(*(self._client(running, bodies) for _ in range(connections)))

    async def _client(self, running: Instance, bodies: Iterable[bytes]) -> None:
        connection = await Connection.open(running)
        for body in bodies:
            try:
                answer = await connection.ask(post(body, self.kind, self.query), 30)
            except (ConnectionError, TimeoutError) as error:
                self._note("lost", f"{type(error).__name__}", body)
                if not running.alive:
                    return
                connection.hang_up()
                connection = await Connection.open(running)
                continue
            self._judge(body, answer)
        connection.hang_up()

    def _judge(self, body: bytes, answer: Answer) -> None:
        if answer.status == 200:
            try:
                sound = self.sound(body, answer)
            except Exception as error:  # noqa: BLE001 - an answer that cannot be read is invalid
                self._note("invalid", repr(error), body)
                return
            if sound:
                self.seen["read"] += 1
            else:
                self._note("invalid", answer.body[:200].decode(errors="replace"), body)
        elif answer.status in REFUSED and self._is_problem(answer):
            self.seen["refused"] += 1
        else:
            self._note("5xx" if answer.status >= 500 else "odd", str(answer), body)

    @staticmethod
    def _is_problem(answer: Answer) -> bool:
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        return is_problem and set(orjson.loads(answer.body)) >= PROBLEM

    def _note(self, what: str, why: str, body: bytes) -> None:
        self.seen[what] += 1
        if len(self.worst) < 5:
            self.worst.append((f"{what}: {why}", body))
            print(f"{what}: {why[:500]}\n  {body[:400]!r}")


def findings(
    running: Instance,
    barrage: Barrage,
    whole: Sequence[bytes],
    damaged: Sequence[tuple[Iterable[bytes], int]],
    *,
    what: str,
    invalid: str,
    most_mebi: float,
) -> list[Finding]:
    """Judge a service under damaged bodies.

    Args:
        running: The service.
        barrage: Knows the format.
        whole: Bodies that must be read, so that the rest is known to be like them.
        damaged: Bodies, and over how many connections they are sent.
        what: Names them, with their number.
        invalid: Names answers that are wrong.
        most_mebi: What the peak of memory may grow by.
    """
    seen = barrage.seen
    play(barrage(running, whole))
    good = seen["read"]
    running.reset_peak()
    before, sent = running.resident_bytes, seen.total()
    for bodies, connections in damaged:
        play(barrage(running, bodies, connections))
    alive, log = running.alive, running.log_text()
    grown = (running.peak_bytes - before) / MEBI if alive else float("nan")
    print(dict(seen))
    return [
        at_most(f"crashes or lost answers in {what}", seen["lost"] + (not alive), 0),
        at_most("of them answered 5xx", seen["5xx"] + log.count("unexpected error"), 0),
        at_most(invalid, seen["odd"] + seen["invalid"], 0),
        at_most("growth of the peak", grown, most_mebi, "MiB"),
        at_least("refused, which shows that they were damaged",
                 seen["refused"], (seen.total() - sent) // 3),
        at_least("whole ones read, which shows that the rest is like them", good, len(whole)),
    ]  # fmt: skip
