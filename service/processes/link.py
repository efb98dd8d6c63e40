"""A channel to a worker, which learns of memory by the message that first speaks of it."""

import socket
from collections.abc import Callable, Iterable
from typing import Any

from loss_scoring.service.processes.channel import Channel
from loss_scoring.service.processes.memory import Place, SharedMemory

TOGETHER = 128
"""Most numbers of one kind in a message."""


class Link(Channel):
    """Sends segments of memory along with messages.

    Args:
        memory: Where it all lies.
        end: See ``Channel``, and so for what is called.
        on_message: With each message of the worker.
        on_end: When it has gone.
    """

    def __init__(
        self,
        memory: SharedMemory,
        end: socket.socket,
        on_message: Callable[[Any, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(end, on_message, on_end)
        self._memory = memory
        self._known: set[int] = set()

    def unknown(self, places: Iterable[Place]) -> set[int]:
        """Return the segments of some places that the worker was not told of."""
        return {place.segment for place in places} - self._known

    def tell(self, message: dict[str, Any], segments: set[int]) -> None:
        """Send a message with segments that are new, and the numbers of those that have gone."""
        dropped = self._memory.dropped
        gone = [dropped.popleft() for _ in range(min(len(dropped), TOGETHER))]
        new = [self._memory.segments[number] for number in segments]
        self._known |= segments
        self._known.difference_update(gone)
        self.send(
            {**message, "segments": [one.number for one in new], "drop": gone},
            [one.descriptor for one in new],
            keep=[one.mapping() for one in new],
        )
