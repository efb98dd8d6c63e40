"""A front end's process.

``python -m loss_scoring.service.processes.frontend PARENT CONTROL LISTENING``

A supervisor starts it; nobody else needs to.
"""

import asyncio
import logging
import os
import socket
import sys
from contextlib import suppress
from typing import Any

from loss_scoring.core.machine import choose_device
from loss_scoring.service.api.start import Start
from loss_scoring.service.app import assemble, build_engine
from loss_scoring.service.codecs.pools import POOLS
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.processes.channel import Channel
from loss_scoring.service.processes.heartbeat import beat, become_child
from loss_scoring.service.processes.memory import SharedMemory
from loss_scoring.service.processes.remote_engine import RemoteEngine
from loss_scoring.service.processes.suspects import Ending
from loss_scoring.service.server.run import run_server
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.logs import configure
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.shared import take_seat
from loss_scoring.service.telemetry.traces import tracing_from_environment

log = logging.getLogger(__name__)

_ASKING = {"ready": os.getpid()}


class Control(Channel):
    """Leads to the supervisor, and keeps a descriptor free for the one that a message brings.

    Connections may have taken all others, for as long as their clients like.
    """

    _spare: int | None = None

    def open(self) -> None:
        """Begin to read."""
        self._reserve()
        super().open()

    def close(self) -> None:
        """Stop, and tell the other end."""
        self._release()
        super().close()

    def read(self) -> None:
        """Take all messages that are there."""
        self._release()
        super().read()
        self._reserve()

    def _reserve(self) -> None:
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _release(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


class SupervisedEngine(RemoteEngine):
    """Learns of workers from the supervisor; set ``control`` before the start."""

    control: socket.socket
    _worker = 0
    _alone = False
    _beat: asyncio.Task[None]

    async def start(self) -> None:
        """Begin to take requests."""
        await super().start()
        channel = Control(self.control, self._meet)
        channel.open()
        channel.send(_ASKING)
        self._beat = asyncio.create_task(beat(channel, news=self._news))

    def _news(self) -> dict[str, Any]:
        """Ask for a worker if there was none for a beat: an introduction may be lost on its way.

        Not at once, as the supervisor may not know yet that the one before has ended, and how.
        """
        self.tell_dropped()
        asks, self._alone = self._alone and not self.connected, not self.connected
        return _ASKING if asks else {}

    def _meet(self, message: tuple[int, str], descriptors: list[int]) -> None:
        worker, ending = message
        if not descriptors:
            log.warning("no descriptor is left to meet the worker")
            return
        end = socket.socket(fileno=descriptors[0])
        if self.connected and worker == self._worker:
            # It was asked for when the one before was on its way. The worker must not be left: what
            # it has not let go of would be given to others.
            end.close()
            return
        ended = Ending(ending) if worker != self._worker else Ending.NONE  # it is the same one
        self._worker, self._alone = worker, False
        self.connect(end, ended)


def _share(settings: Settings) -> Settings:
    """Return this front end's part of what all may use together, at least one large request's."""
    count = settings.frontends
    queued = max(settings.max_queued_elements // count, 2 * settings.max_elements)
    open_ = max(settings.max_open_bytes // count, 4 * settings.max_body_bytes)
    return settings.model_copy(update={"max_queued_elements": queued, "max_open_bytes": open_})


def main() -> None:
    """Serve HTTP on an inherited socket, and let the device worker score."""
    parent, control, listening = map(int, sys.argv[1:4])
    supervisor = become_child(parent, control)
    settings = _share(Settings.from_environment())
    configure(settings, "frontend")
    metrics, memory = Metrics(take_seat("frontend")), SharedMemory()
    for pool in POOLS.values():
        pool.allocate_with(memory.allocate)  # so that values lie where the worker sees them
    may_score = settings.inline_elements or settings.idle_inline_elements
    scores = may_score and choose_device(settings.device).type == "cpu"
    engine = SupervisedEngine(
        memory,
        QueueQuota(settings.max_queued_elements + settings.batch_elements),  # and on the device
        metrics.observe_batch,
        build_engine(settings, metrics, None) if scores else None,
    )
    engine.control = supervisor
    start = Start(background=True)
    app = assemble(settings, engine, metrics, tracing_from_environment(), start)
    run_server(app, settings, metrics, start, [socket.socket(fileno=listening)])


if __name__ == "__main__":
    main()
