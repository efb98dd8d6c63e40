"""How clients share what is scarce, bytes of memory or elements in the queue. Pure.

A client may hold at most ``GREED`` times what is free. So a client that is alone gets four fifths,
n greedy clients get equal shares, and a fifth of what is left is always there for a newcomer. This
is the dynamic threshold of shared-memory switches (Choudhury and Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", 1998); it needs no list of clients and no configured
shares.
"""

import math
from collections import defaultdict
from enum import Enum

GREED = 4
ALONE = GREED / (GREED + 1)
"""The fraction of the capacity that a client can hold while it is alone."""


class Verdict(Enum):
    """The result of an admission attempt."""

    ADMITTED = "admitted"
    FULL = "full"
    """Too little is free, even for a client that holds nothing."""
    OVER_SHARE = "over share"
    """It would be admitted if the client held nothing."""


class FairShare:
    """Counts what each client holds of one scarce resource.

    Args:
        capacity: How much there is, in any unit.

    Example:
        >>> memory = FairShare(100)
        >>> memory.take("a", 80), memory.take("a", 1)
        (<Verdict.ADMITTED: 'admitted'>, <Verdict.OVER_SHARE: 'over share'>)
        >>> memory.take("b", 16), memory.take("c", 5)
        (<Verdict.ADMITTED: 'admitted'>, <Verdict.FULL: 'full'>)
        >>> memory.release("a", 80)
        >>> memory.take("c", 5)
        <Verdict.ADMITTED: 'admitted'>
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: dict[str, int] = defaultdict(int)
        self.total = 0
        """How much all clients hold together."""

    def held_by(self, client: str) -> int:
        return self._held.get(client, 0)

    def verdict(self, client: str, amount: int) -> Verdict:
        """Return what ``take`` would."""
        held = self._held.get(client, 0)
        share = ALONE * (self._capacity - self.total + held)
        if held + amount <= share or amount == 0:
            return Verdict.ADMITTED
        return Verdict.OVER_SHARE if amount <= share else Verdict.FULL

    def take(self, client: str, amount: int) -> Verdict:
        """Take an amount if that much is free and the client's share allows it."""
        held = self._held.get(client, 0)
        if amount == 0 or held + amount > ALONE * (self._capacity - self.total + held):
            return self.verdict(client, amount)
        self._held[client] = held + amount
        self.total += amount
        return Verdict.ADMITTED

    def release(self, client: str, amount: int) -> None:
        """Release what was taken, or a part of it."""
        if amount == 0:
            return
        left = self._held[client] - amount
        if left:
            self._held[client] = left
        else:
            del self._held[client]
        self.total -= amount


_MEMORY_S = 5.0


class DrainRate:
    """How fast a resource is freed, so that a refusal can say when to retry.

    A moving average over the last seconds, in which older amounts count less and less.

    Example:
        >>> rate = DrainRate()
        >>> for now in range(60):
        ...     rate.drained(100, now=now)
        >>> rate.seconds_for(1000, now=60)
        12
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._since = -math.inf

    def drained(self, amount: int, *, now: float) -> None:
        """Count an amount that was freed."""
        self._sum = self._sum * math.exp((self._since - now) / _MEMORY_S) + amount
        self._since = now

    def seconds_for(self, amount: int, *, now: float) -> int:
        """Return whole seconds, 1 to 30, after which an amount may be free."""
        rate = self._sum * math.exp((self._since - now) / _MEMORY_S) / _MEMORY_S
        return min(max(math.ceil(amount / rate), 1), 30) if rate > 0 else 1
