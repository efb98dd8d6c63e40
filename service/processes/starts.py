"""When to stop starting workers: what a supervisor knows of starts that came to nothing."""

import time
from collections.abc import Callable


class FailedStarts:
    """Counts the starts in a row of which no worker became ready.

    A worker that was ready has not failed to start, however soon and by whatever it ends.

    Args:
        most: So many are too many,
        for_s: if the last sound worker was so many seconds ago, too. Longer than a driver takes to
            recover, or somebody kills for.
        clock: Seconds, for the tests.
    """

    def __init__(
        self, most: int = 5, for_s: float = 90, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._for_s, self._clock = most, for_s, clock
        self.why = ""
        """Why the last one failed."""
        self.sound()

    def sound(self) -> None:
        """Note that a worker is ready at this moment."""
        self.count = 0
        self._since = self._clock()

    def failed(self, why: str) -> None:
        """Note that a start came to nothing."""
        self.count += 1
        self.why = why

    @property
    def seconds(self) -> float:
        """How long ago the last sound worker was, or the first start."""
        return self._clock() - self._since

    @property
    def too_many(self) -> bool:
        """Whether no other start will go better here."""
        return self.count >= self._most and self.seconds >= self._for_s
