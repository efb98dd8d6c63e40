"""Who may take how much of what is scarce: bytes in memory, elements in the queue. Pure.

One client may hold ``GREED`` times what is free. So whoever is alone gets four fifths, n greedy
clients get equal parts, and a fifth of what is left is always there for a newcomer. This is the
dynamic threshold that switches use for shared buffers (Choudhury and Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", 1998); it needs no list of clients and no shares
that somebody must set.
"""

from collections import defaultdict
from enum import Enum

GREED = 4
ALONE = GREED / (GREED + 1)
"""The part of the whole that a client can hold while it is alone."""


class Verdict(Enum):
    """What becomes of a wish."""

    TAKEN = "taken"
    FULL = "full"
    """There is no room, not even for a client that holds nothing."""
    OVER_SHARE = "over share"
    """There would be room if the client held nothing."""


class Admission:
    """Counts what each client holds of one scarce thing.

    Args:
        capacity: How much there is, in any unit.

    Example:
        >>> bytes_ = Admission(100)
        >>> bytes_.take("a", 80), bytes_.take("a", 1)
        (<Verdict.TAKEN: 'taken'>, <Verdict.OVER_SHARE: 'over share'>)
        >>> bytes_.take("b", 16), bytes_.take("c", 5)
        (<Verdict.TAKEN: 'taken'>, <Verdict.FULL: 'full'>)
        >>> bytes_.give_back("a", 80)
        >>> bytes_.take("c", 5)
        <Verdict.TAKEN: 'taken'>
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
        """How much is held by all clients together."""
        return self._total

    def take(self, client: str, amount: int) -> Verdict:
        """Take an amount if there is room for it and the client's share allows it."""
        if amount == 0:
            return Verdict.TAKEN  # and leave no trace
        held = self._held.get(client, 0)
        left_by_others = self._capacity - self._total + held
        if held + amount > ALONE * left_by_others:
            return Verdict.OVER_SHARE if amount <= ALONE * left_by_others else Verdict.FULL
        self._held[client] = held + amount
        self._total += amount
        return Verdict.TAKEN

    def give_back(self, client: str, amount: int) -> None:
        """Give back what was taken, or a part of it."""
        left = self._held[client] - amount
        if left:
            self._held[client] = left
        else:
            del self._held[client]
        self._total -= amount
