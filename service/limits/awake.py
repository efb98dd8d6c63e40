"""The clock for detecting hung processes: it stops while this process itself does not run.

A paused container, a frozen control group or a suspended machine stops a process and those that it
watches. Wall time goes on meanwhile, and would make healthy processes look silent.
"""

import time
from collections.abc import Callable

TICK_S = 0.5
"""The longest time between two ticks, while the process runs."""
_LONGEST_GAP_S = 2 * TICK_S


class AwakeClock:
    """Seconds in which this process ran. Of a longer gap between two ticks it counts one second.

    Args:
        clock: Seconds, for the tests.

    Example:
        >>> time = iter([0.0, 0.5, 60.0, 60.25])
        >>> clock = AwakeClock(time.__next__)
        >>> clock.tick(), clock.tick(), clock.now()
        (None, None, 1.75)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = 0.0, clock()  # one attribute, as threads read it between two writes

    def tick(self) -> None:
        """Count the time since the last tick."""
        now = self._clock()
        self._last = self._at(now), now

    def now(self) -> float:
        """Return the seconds so far."""
        return self._at(self._clock())

    def _at(self, now: float) -> float:
        counted, last = self._last
        return counted + min(now - last, _LONGEST_GAP_S)
