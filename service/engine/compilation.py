"""A line in the log where a start compiles, so that nobody takes a minute for a fault."""

import logging
from typing import Any

from numba.core import event

log = logging.getLogger(__name__)


def announce_compilation() -> None:
    """Log once when numba begins to compile what it has in no cache."""
    event.register("numba:compile", _Announcement())  # type: ignore[no-untyped-call]


class _Announcement(event.Listener):
    _said = False  # by this process

    def on_start(self, _event: Any) -> None:
        if not self._said:
            self._said = True
            log.info("compiling what no cache has; a first start takes a minute or more")

    def on_end(self, _event: Any) -> None:
        pass
