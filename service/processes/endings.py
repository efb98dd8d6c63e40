"""How a worker ends, and what follows from it. Pure.

A worker that dies takes a batch with it, and some request in the batch may be why. Each is scored
again alone: that finds the culprit with one more death, where bisection would take one for each
halving, and a new worker costs seconds while a batch of one costs microseconds. The request on the
device at a second crash was alone there, and is convicted.

A worker may also be killed from outside, by a person or for want of memory, which says little about
what was on the device; it takes more of those.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

UNFIT, CANNOT_START, LOST = 0, 3, 70
"""Exit statuses of a worker: one that cannot go on through no fault of a request, one that never
was ready, and one whose device is lost or hangs."""
_KILLS = 4


class Ending(Enum):
    """How a worker ended."""

    NONE = "none"
    """There was none, or it still serves others."""
    CRASHED = "crashed"
    """By what it did: a signal of its own making, a lost device, or a batch without an end."""
    KILLED = "killed"
    """From outside, as far as can be seen."""

    @classmethod
    def of(cls, status: int) -> "Ending":
        """Return what an exit status says; that of a signal is negative."""
        return cls.KILLED if status in (UNFIT, -signal.SIGKILL) else cls.CRASHED


@dataclass
class Suspicion:
    """What speaks against one request.

    Attributes:
        alone: Whether it has to be scored alone.
    """

    alone: bool = False
    _kills: int = 0

    def convicts(self, ending: Ending) -> bool:
        """Note that a worker ended with the request on its device; return if that is enough.

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


class FailedStarts:
    """Counts the starts in a row of which no worker became ready.

    A worker that was ready has not failed to start, however soon and by whatever it ends.

    Args:
        most: So many are too many,
        for_s: if the last ready worker was so many seconds ago, too. Longer than a driver takes to
            recover, or than workers are killed by hand.
        clock: Seconds, for the tests.
    """

    def __init__(
        self, most: int = 5, for_s: float = 90, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._for_s, self._clock = most, for_s, clock
        self.why = ""
        """Why the last one failed."""
        self.reset()

    def reset(self) -> None:
        """Note that a worker is ready at this moment."""
        self.count = 0
        self._since = self._clock()

    def add(self, why: str) -> None:
        """Note that a start has failed."""
        self.count += 1
        self.why = why

    @property
    def seconds(self) -> float:
        """How long ago the last ready worker was, or the first start."""
        return self._clock() - self._since

    @property
    def too_many(self) -> bool:
        """Whether no other start will succeed here."""
        return self.count >= self._most and self.seconds >= self._for_s
