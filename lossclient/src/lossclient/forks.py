"""What each process must have for itself, though it may have been forked."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from lossclient.exceptions import InvalidInput

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One of something in each process; a child makes its own when it first asks.

    Two processes that share a connection would read each other's answers. What the child inherits
    is dropped, not closed: its descriptors go, the parent's connections stay as they are. A lock in
    it may be held by a thread that the child does not have.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[int, T] | None = None
        self._closed = False

    def get(self) -> T:
        """Return that of this process.

        Raises:
            InvalidInput: If `close` was called, here or before the fork.
        """
        if self._closed:
            raise InvalidInput("the client is closed; make another one")
        made = self._made
        if made is None or made[0] != os.getpid():
            made = self._made = (os.getpid(), self._make())  # at once: other threads may ask
        return made[1]

    def close(self) -> T | None:
        """Give it to nobody any more; return that of this process, to be closed, if it has one."""
        self._closed = True
        made = self._made
        return made[1] if made is not None and made[0] == os.getpid() else None
