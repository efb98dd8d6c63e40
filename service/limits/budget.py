"""The memory budget and the queue quota: shared fairly among clients, usable from any thread.

A request reserves at its head what it is likely to need in all: body, numbers and answer. Decoding
corrects that as it learns more, and settles it once the request is known. To refuse a request only
then would waste its decoding, which under overload was half of the processor's time.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from types import TracebackType
from typing import Any, ClassVar, Self

from loss_scoring.service.errors import (
    DeadlineError,
    OverloadedError,
    OverShareError,
    TooLargeError,
)
from loss_scoring.service.limits.fairness import ALONE, DrainRate, FairShare, Verdict

_REMEMBERED = 1024
"""Kinds of requests of clients whose expansion is known."""


class Budget:
    """An amount of something scarce. Every method may be called from any thread.

    Args:
        capacity: How much there is; a client that is alone may hold ``ALONE`` of it.
    """

    _over_share: ClassVar[str]
    _full: ClassVar[str]
    _reason: ClassVar[str]

    def __init__(self, capacity: int) -> None:
        self._lock = threading.Lock()
        self._share = FairShare(capacity)
        self._drain = DrainRate()

    @property
    def held(self) -> int:
        """How much all clients hold together."""
        return self._share.total

    def take(self, client: str, amount: int, held: int = 0) -> None:
        """Take an amount for one request of a client.

        Args:
            client: Whose request it is.
            amount: How much.
            held: What the same request holds already.

        Raises:
            OverShareError: If the client's other requests hold so much that others need the rest.
            OverloadedError: If too little is free.
        """
        with self._lock:
            verdict = self._share.take(client, amount)
        if verdict is not Verdict.ADMITTED:
            raise self._refusal(verdict, client, amount, held)

    def _refusal(
        self, verdict: Verdict, client: str, amount: int, held: int
    ) -> OverShareError | OverloadedError:
        with self._lock:
            after = self._drain.seconds_for(amount, now=time.monotonic())
            over_share = verdict is Verdict.OVER_SHARE and self._share.held_by(client) > held
        if over_share:
            return OverShareError(self._over_share, after, reason=f"{self._reason}-share")
        return OverloadedError(self._full, after, reason=f"{self._reason}-full")

    def release(self, client: str, amount: int) -> None:
        """Release what was taken, or a part of it."""
        with self._lock:
            self._share.release(client, amount)
            self._drain.drained(amount, now=time.monotonic())


class QueueQuota(Budget):
    """The elements that may wait for the device, or be on it, together."""

    _over_share = "your other requests fill most of the queue; await their answers"
    _full = "the queue is full; try again later"
    _reason = "queue"


class MemoryBudget(Budget):
    """The bytes that bodies, numbers and answers may take together.

    One request may have ``ALONE`` of them.

    Args:
        max_bytes: How many there are.
        small_bytes: A body up to this is accounted for once it is decoded: a connection's own
            buffers hold as much before.
    """

    _over_share = (
        "your other requests hold most of the server's memory; await their answers (requests that "
        "passed their deadline are still being finished)"
    )
    _full = "the server's memory is full; try again later"
    _reason = "memory"

    def __init__(self, max_bytes: int, small_bytes: int = 1 << 16) -> None:
        super().__init__(max_bytes)
        self.small_bytes = small_bytes
        self.max_request_bytes = int(ALONE * max_bytes)
        self._ample = max_bytes // 2
        self._expansion: OrderedDict[tuple[str, str], float] = OrderedDict()

    @property
    def scarce(self) -> bool:
        """Whether so much is taken that heads of requests are checked for ``refusal``."""
        return self._share.total > self._ample

    def refusal(self, client: str, kind: str, size: int) -> OverShareError | OverloadedError | None:
        """Return what a request with a body of some kind and size is to be refused with, if it is.

        Nothing is reserved: the request does that itself.
        """
        amount = self.likely(client, kind, size)
        with self._lock:
            verdict = self._share.verdict(client, amount)
        return None if verdict is Verdict.ADMITTED else self._refusal(verdict, client, amount, 0)

    def likely(self, client: str, kind: str, size: int) -> int:
        """Return what a body of some kind and size is likely to need in all.

        At least the bytes themselves. What is only likely takes at most half of what a request may
        have, so that a body that fits is not refused for it.

        Args:
            client: Whose it is; what others send must not make its bodies look large.
            kind: Such as ``json``; a client's requests of a kind are taken to be alike.
            size: Of the body, or of a part of it.
        """
        with self._lock:
            likely = int(size * self._expansion.get((client, kind), 1.0))
        return max(size, min(likely, self.max_request_bytes // 2))

    def learn(self, client: str, kind: str, size: int, needed: int) -> None:
        """Remember what a body needed in all."""
        with self._lock:
            before = self._expansion.pop((client, kind), 1.0)
            self._expansion[client, kind] = before + 0.1 * (needed / max(size, 1) - before)
            if len(self._expansion) > _REMEMBERED:
                self._expansion.popitem(last=False)


class Reservation:
    """The bytes that one request holds until the end of the ``with``, or of a thread's work."""

    __slots__ = ("_budget", "_ended", "_held", "_received", "_work", "client", "kind")

    def __init__(self, budget: MemoryBudget, client: str) -> None:
        self._budget = budget
        self.client = client
        self._held = self._received = 0
        self._work: asyncio.Future[Any] | None = None
        self._ended = False
        self.kind = ""
        """Of request, once it is known; requests of a kind usually need alike."""

    def receive(self, size: int) -> None:
        """Reserve what a body, or a part of one, is likely to need; raises as ``reserve`` does.

        A small body is reserved when it is settled.
        """
        self._received += size
        if self._received > self._budget.small_bytes:
            likely = self._budget.likely(self.client, self.kind, self._received)
            self._take(max(likely - self._held, 0))

    def reserve(self, added: int) -> None:
        """Hold at least the bytes received and ``added`` bytes.

        Raises:
            TooLargeError: If a request may never have so much.
            OverShareError: If the client's other requests hold so much that others need the rest.
            OverloadedError: If too little is free.
        """
        self._take(max(self._received + added - self._held, 0))

    def settle(self, added: int) -> None:
        """Hold exactly the bytes received and ``added`` bytes; raises as ``reserve`` does."""
        needed = self._received + added
        if self._received > self._budget.small_bytes:
            self._budget.learn(self.client, self.kind, self._received, needed)
        excess = self._held - needed
        if excess > 0:
            self._budget.release(self.client, excess)
            self._held -= excess
        else:
            self._take(-excess)

    def check(self) -> None:
        """Raise ``DeadlineError`` if the request has ended: at its deadline, or its client left.

        Work in a thread cannot be cancelled; it calls this between pieces that take milliseconds.
        """
        if self._ended:
            raise DeadlineError("the request was cancelled, or its deadline has passed")

    def until(self, work: asyncio.Future[Any]) -> None:
        """Hold the bytes until work ends that cannot be cancelled."""
        self._work = work

    def _take(self, size: int) -> None:
        needed, most = self._held + size, self._budget.max_request_bytes
        if needed > most:
            raise TooLargeError(
                f"body and answer need about {needed >> 20} MiB, this server gives a request "
                f"{most >> 20}; split it by series, or ask for Arrow or for fewer gradients"
            )
        self._budget.take(self.client, size, self._held)
        self._held = needed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        if self._work is not None and not self._work.done():
            self._work.add_done_callback(lambda _: self._release())
        elif self._held:
            self._release()

    def _release(self) -> None:
        if self._held:
            self._budget.release(self.client, self._held)
            self._held = 0
