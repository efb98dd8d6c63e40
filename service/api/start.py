"""The start of a service, during which it answers: that it starts, to probes and requests.

A first start compiles for a minute or more, and a refused connection would not say so.
"""

import asyncio
import logging
import time
from contextlib import suppress

from loss_scoring.service.codecs import json
from loss_scoring.service.engine import ScoringEngine
from loss_scoring.service.engine.worker import announce_compilation
from loss_scoring.service.errors import OverloadedError

log = logging.getLogger(__name__)
_uvicorn = logging.getLogger("uvicorn.start")
"""uvicorn's own lines are off, as it logs that it runs before it listens."""

_WAIT_S = 2
"""How long a request waits for the end of the start: of several front ends, another may have been
ready first, and have answered the probe."""
_RETRY_S = 5


class Start:
    """How far a start is.

    Args:
        background: Whether the server listens meanwhile. Else its lifespan begins with the end of
            the start, and fails with it.

    Attributes:
        done: Whether requests are accepted.
        failed: Whether they never will be.
    """

    def __init__(self, *, background: bool = False) -> None:
        self._background = background
        self._began = time.monotonic()
        self._finished = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._addresses = ""
        self.done = self.failed = False

    async def begin(self, engine: ScoringEngine) -> None:
        """Warm everything up, in a thread; return at once if that is in the background."""
        self._task = asyncio.create_task(self._run(engine))
        if not self._background:
            await self._task

    async def _run(self, engine: ScoringEngine) -> None:
        announce_compilation()
        try:
            await asyncio.to_thread(json.warm_up)
            await engine.start()
        except Exception:
            self.failed = True
            if not self._background:
                raise
            log.exception("the service cannot start")
            return
        self.done = True
        self._finished.set()
        self._log_ready()

    def listens(self, addresses: str) -> None:
        """Note that the server listens, and where."""
        log.info("listening on %s; requests are accepted when it is ready", addresses)
        self._addresses = addresses
        self._log_ready()

    def _log_ready(self) -> None:
        if self.done and self._addresses:
            seconds = time.monotonic() - self._began
            _uvicorn.info("Uvicorn running on %s, ready after %.1f s", self._addresses, seconds)

    async def wait(self, until: float) -> None:
        """Wait a moment for the end of the start.

        Args:
            until: On the monotonic clock: a request that cannot wait so long still gets the reason.

        Raises:
            OverloadedError: If it does not come.
        """
        left = max(until - time.monotonic(), 0)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), min(_WAIT_S, left))
        self.check()

    def check(self) -> None:
        """Raise ``OverloadedError`` unless it is done."""
        if not self.done:
            raise OverloadedError(
                f"starting for {time.monotonic() - self._began:.0f} s; a first start compiles, "
                "which takes a minute or more",
                _RETRY_S,
                reason="starting",
            )
