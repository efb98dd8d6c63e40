"""How fast a resource is freed, so that a refusal can say when to retry. Pure."""

import math

_MEMORY_S = 5.0


class DrainRate:
    """A moving average over the last seconds, in which older amounts count less and less.

    Example:
        >>> rate = DrainRate()
        >>> for now in range(60):
        ...     rate.drained(100, now=now)
        >>> rate.seconds_for(1000, now=60)
        11
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._since = -math.inf

    def drained(self, amount: int, *, now: float) -> None:
        """Count an amount that was freed."""
        self._sum = self._decayed(now) + amount
        self._since = now

    def seconds_for(self, amount: int, *, now: float) -> int:
        """Return whole seconds, 1 to 30, after which an amount may be free."""
        rate = self._decayed(now) / _MEMORY_S
        return min(max(math.ceil(amount / rate), 1), 30) if rate > 0 else 1

    def _decayed(self, now: float) -> float:
        return self._sum * math.exp((self._since - now) / _MEMORY_S)
