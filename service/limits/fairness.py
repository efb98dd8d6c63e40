"""How clients share what is scarce: bytes of memory, elements in the queue. Pure.

A client may hold at most ``GREED`` times what is free. So a client that is alone gets four fifths,
n greedy clients get equal shares, and a fifth of what is left is always there for a newcomer. This
is the dynamic threshold of shared-memory switches (Choudhury and Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", 1998); it needs no list of clients and no configured
shares.
"""

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
        self._total = 0

    def held_by(self, client: str) -> int:
        """Return how much a client holds."""
        return self._held.get(client, 0)

    @property
    def held(self) -> int:
        """How much all clients hold together."""
        return self._total

    def take(self, client: str, amount: int) -> Verdict:
        """Take an amount if that much is free and the client's share allows it."""
        if amount == 0:
            return Verdict.ADMITTED  # and leave no trace
        held = self._held.get(client, 0)
        left_by_others = self._capacity - self._total + held
        if held + amount > ALONE * left_by_others:
            return Verdict.OVER_SHARE if amount <= ALONE * left_by_others else Verdict.FULL
        self._held[client] = held + amount
        self._total += amount
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
        self._total -= amount
