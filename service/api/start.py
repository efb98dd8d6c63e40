"""The start of a service, during which probes are answered already.

A first start compiles for a minute or more. A request meanwhile gets that as its answer, and not
a refused connection.
"""

import asyncio
import logging
import time
from contextlib import suppress

from loss_scoring.service.codecs import json
from loss_scoring.service.engine import Scorer
from loss_scoring.service.engine.worker import announce_compilation
from loss_scoring.service.errors import OverloadedError

log = logging.getLogger(__name__)
_uvicorn = logging.getLogger("uvicorn.start")
"""uvicorn itself says that it runs before it listens; its own lines are off."""

_PATIENCE_S = 2
"""A request waits so long for the end of the start: one of several front ends may be a little later
than the one that said it was ready."""
_RETRY_S = 5


class Start:
    """How far a start is.

    Args:
        background: Whether the server listens meanwhile. Else its lifespan begins with the end of
            the start, and fails with it.

    Attributes:
        done: Whether requests are taken.
        failed: Whether they never will be.
    """

    def __init__(self, *, background: bool = False) -> None:
        self._background = background
        self._began = time.monotonic()
        self._finished = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._addresses = ""
        self.done = self.failed = False

    async def begin(self, engine: Scorer) -> None:
        """Warm everything up, in a thread; return at once if that is in the background."""
        self._task = asyncio.create_task(self._run(engine))
        if not self._background:
            await self._task

    async def _run(self, engine: Scorer) -> None:
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
        self._say_that_it_runs()

    def listens(self, addresses: str) -> None:
        """Note that the server listens, and where."""
        log.info("listening on %s; requests are taken when it is ready", addresses)
        self._addresses = addresses
        self._say_that_it_runs()

    def _say_that_it_runs(self) -> None:
        if self.done and self._addresses:
            seconds = time.monotonic() - self._began
            _uvicorn.info("Uvicorn running on %s, ready after %.1f s", self._addresses, seconds)

    async def wait(self, until: float) -> None:
        """Wait a moment for the end of the start.

        Args:
            until: On the monotonic clock: a request that cannot wait so long is still told why.

        Raises:
            OverloadedError: If it does not come.
        """
        left = max(until - time.monotonic(), 0)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), min(_PATIENCE_S, left))
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
