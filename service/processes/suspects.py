"""Which request killed the worker. Pure.

A worker that dies takes a batch with it, and some request in the batch may be why. Each is scored
again alone: that finds the culprit with one more death, where bisection would take one for each
halving, and a new worker costs seconds while a batch of one costs microseconds. Who is on the
device at a second crash was alone there, and is convicted.

A worker may also be killed from outside, by somebody or for want of memory, which says little
about who was on the device; it takes more of those.
"""

from dataclasses import dataclass
from enum import Enum

_KILLS = 4


class Ending(Enum):
    """How a worker ended."""

    NONE = "none"
    """There was none, or it still serves others."""
    CRASHED = "crashed"
    """By what it did: a signal of its own making, a lost device, or a batch without an end."""
    KILLED = "killed"
    """From outside, as far as can be seen."""


@dataclass
class Suspicion:
    """What speaks against one request.

    Attributes:
        alone: Whether it has to be scored alone.
    """

    alone: bool = False
    _kills: int = 0

    def convicts(self, ending: Ending) -> bool:
        """Note that a worker ended with the request on its device; tell if that is enough.

        Example:
            >>> suspicion = Suspicion()
            >>> suspicion.convicts(Ending.CRASHED), suspicion.convicts(Ending.CRASHED)
            (False, True)
        """
        if ending is Ending.NONE:
            return False
        was_alone, self.alone = self.alone, True
        if ending is Ending.CRASHED:
            return was_alone
        self._kills += was_alone
        return self._kills >= _KILLS
