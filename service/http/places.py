"""The queue's places, shared among clients, so that who fills it leaves some to a newcomer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.engine.admission import Admission, Verdict
from service.engine.drain import DrainRate
from service.errors import OverloadedError, OverShareError


class Places:
    """The elements that may wait for the device, or be on it, together.

    Args:
        max_elements: How many; one request of whoever is alone may have ``ALONE`` of them.
    """

    def __init__(self, max_elements: int) -> None:
        self._admission = Admission(max_elements)
        self._drain = DrainRate()

    @contextmanager
    def taken(self, client: str, elements: int) -> Iterator[None]:
        """Hold the places of one request.

        Raises:
            OverShareError: If the client holds so many that others need what is left.
            OverloadedError: If there are not so many.
        """
        verdict = self._admission.take(client, elements)
        if verdict is not Verdict.TAKEN:
            after = self._drain.seconds_for(elements, now=time.monotonic())
            if verdict is Verdict.OVER_SHARE:
                raise OverShareError(
                    "your other requests fill most of the queue; await their answers",
                    after,
                    reason="queue-share",
                )
            raise OverloadedError("the queue is full; try again later", after, reason="queue-full")
        try:
            yield
        finally:
            self._admission.give_back(client, elements)
            self._drain.drained(elements, now=time.monotonic())
