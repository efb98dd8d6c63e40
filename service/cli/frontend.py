"""A front end's process: ``python -m service.cli.frontend PARENT CONTROL LISTENING``.

A supervisor starts it; nobody else needs to.
"""

import asyncio
import os
import socket
import sys

from service.app import assemble, build_engine, choose_device
from service.cli.child import beat, become_child
from service.cli.serve import run_server
from service.codecs import json_ordinary
from service.engine.remote import Channel, Ending, RemoteEngine, SharedMemory
from service.http import body
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.shared import take_seat
from service.telemetry.traces import tracing_from_environment


class _SupervisedEngine(RemoteEngine):
    """Learns of workers from the supervisor."""

    control: socket.socket
    _beat: asyncio.Task[None]

    async def start(self) -> None:
        """Begin to take requests."""
        await super().start()
        channel = Channel(self.control, self._meet)
        channel.open()
        channel.send({"ready": os.getpid()})
        self._beat = asyncio.create_task(beat(channel))

    def _meet(self, ending: str, descriptors: list[int]) -> None:
        self.connect(socket.socket(fileno=descriptors[0]), Ending(ending))


def _share(settings: Settings) -> Settings:
    """Return this front end's part of what all may use together, at least one large request's."""
    count = settings.frontends
    queued = max(settings.max_queued_elements // count, settings.max_elements)
    open_ = max(settings.max_open_bytes // count, 4 * settings.max_body_bytes)
    return settings.model_copy(update={"max_queued_elements": queued, "max_open_bytes": open_})


def main() -> None:
    """Serve HTTP on an inherited socket, and let the device worker score."""
    parent, control, listening = map(int, sys.argv[1:4])
    supervisor = become_child(parent, control)
    settings = _share(Settings.from_environment())
    metrics, memory = Metrics(take_seat("frontend")), SharedMemory()
    for pool in (body.BODIES, json_ordinary.SCRATCH):
        pool.allocate_with(memory.allocate)  # so that values lie where the worker sees them
    may_score = settings.inline_elements or settings.idle_inline_elements
    scores = may_score and choose_device(settings.device).type == "cpu"
    engine = _SupervisedEngine(
        memory,
        settings.max_queued_elements + settings.batch_elements,  # with what is on the device
        metrics.observe_batch,
        build_engine(settings, metrics, None) if scores else None,
    )
    engine.control = supervisor
    app = assemble(settings, engine, metrics, tracing_from_environment())
    run_server(app, settings, metrics, [socket.socket(fileno=listening)])


if __name__ == "__main__":
    main()
