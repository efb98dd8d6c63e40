"""Clients that ask, and check each answer element by element, until they are told to stop."""

import asyncio
import itertools
import random
from collections import Counter
from types import TracebackType
from typing import Self

import orjson
from checked import request_of
from finding import Finding, at_least, at_most
from instance import Instance, front_of
from traffic import Answer, Connection

REQUESTS = 16
"""Different ones of each client; every eighth is large."""


class Crowd:
    """A context: the clients ask while it is open, and get the answers they still wait for.

    Args:
        running: The service.
        clients: How many; each has a connection, and another one now and then.
        tags: What its requests begin with; crowds beside each other need different ones.
        timeout_ms: The deadline of each request.
    """

    def __init__(
        self, running: Instance, clients: int = 12, tags: int = 0, timeout_ms: int = 60_000
    ) -> None:
        self._running, self._clients = running, clients
        self._tags, self._timeout_ms = tags, timeout_ms
        self._stop = asyncio.Event()
        self.seen: Counter[str] = Counter()
        """``right``, ``wrong``, ``lost``, or the status; ``retryable`` for those that say so."""
        self.seconds: list[float] = []
        self.lost: list[str] = []
        """The front ends, as far as known, of connections that were cut."""

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(n)) for n in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _client(self, n: int) -> None:
        rng = random.Random(self._tags + n)
        asked = [
            request_of(
                self._tags + n * REQUESTS + k, rng, large=k % 8 == 0, timeout_ms=self._timeout_ms
            )
            for k in range(1, REQUESTS + 1)
        ]
        connection, front = await Connection.open(self._running), ""
        for k, (request, known) in enumerate(itertools.cycle(asked)):
            if self._stop.is_set():
                break
            try:
                answer = await connection.ask(request, 90)
            except (OSError, TimeoutError):
                self.seen["lost"] += 1
                self.lost.append(front)
            else:
                front = front_of(answer.headers)
                self._note(answer, right=known.is_right(answer))
            if connection.closed.is_set() or k % 50 == 49:
                connection.hang_up()
                connection, front = await Connection.open(self._running), ""
        connection.hang_up()

    def _note(self, answer: Answer, *, right: bool) -> None:
        self.seconds.append(answer.seconds)
        if answer.status == 200:
            self.seen["right" if right else "wrong"] += 1
        else:
            self.seen[str(answer.status)] += 1
            self.seen["retryable"] += orjson.loads(answer.body)["retryable"]

    def findings(self, least: int = 12) -> list[Finding]:
        """Return what holds for patient clients, of which there are twelve, whatever ends a worker."""
        seen = self.seen
        refused = seen.total() - seen["right"] - seen["wrong"] - seen["lost"] - seen["retryable"]
        return [
            at_most("wrong answers", seen["wrong"], 0),
            at_most("requests without an answer", seen["lost"], 0),
            at_most("answers other than 200", refused, 0),
            at_least("right answers", seen["right"], least),
        ]
