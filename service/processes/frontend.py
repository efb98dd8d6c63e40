"""A front end's process.

``python -m loss_scoring.service.processes.frontend PARENT CONTROL LISTENING WORKER SLOT``

Only a supervisor starts it.
"""

import asyncio
import socket
import sys

from loss_scoring.core.machine import choose_device
from loss_scoring.service.api.start import Start
from loss_scoring.service.app import assemble, build_engine
from loss_scoring.service.codecs.pools import POOLS
from loss_scoring.service.limits.budget import QueueQuota
from loss_scoring.service.processes.child import Control
from loss_scoring.service.processes.memory import Arena
from loss_scoring.service.processes.remote_engine import RemoteEngine
from loss_scoring.service.server.run import run_server
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.logs import configure
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.multiprocess import count_as
from loss_scoring.service.telemetry.traces import tracing_from_environment


class _SupervisedEngine(RemoteEngine):
    """Notifies the supervisor that it has started, and that its event loop turns."""

    control: Control

    async def start(self) -> None:
        await super().start()
        self.control.send(ready=True)
        self._heartbeats = asyncio.create_task(self.control.send_heartbeats(lambda: not self.lost))


def _share(settings: Settings) -> Settings:
    """Return this front end's part of what all may use together, at least one large request's."""
    count = settings.frontends
    queued = max(settings.max_queued_elements // count, 2 * settings.max_elements)
    open_ = max(settings.max_open_bytes // count, 4 * settings.max_body_bytes)
    return settings.model_copy(update={"max_queued_elements": queued, "max_open_bytes": open_})


def main() -> None:
    """Serve HTTP on an inherited socket, and let the device worker score."""
    parent, descriptor, listening = map(int, sys.argv[1:4])
    worker, slot = f"\0{sys.argv[4]}", int(sys.argv[5])
    control = Control(parent, descriptor)
    settings = _share(Settings.from_environment())
    configure(settings, "frontend")
    metrics, arena = Metrics(count_as("frontend", slot)), Arena()
    for pool in POOLS.values():
        pool.allocate_with(arena.allocate)  # so that values lie where the worker sees them
    may_score = settings.inline_elements or settings.idle_inline_elements
    scores = may_score and choose_device(settings.device).type == "cpu"
    engine = _SupervisedEngine(
        arena,
        QueueQuota(settings.max_queued_elements + settings.batch_elements),  # and on the device
        worker,
        metrics.observe_batch,
        build_engine(settings, metrics, None) if scores else None,
    )
    engine.control = control
    start = Start(background=True)
    app = assemble(settings, engine, metrics, tracing_from_environment(), start)
    run_server(app, settings, metrics, start, [socket.socket(fileno=listening)])


if __name__ == "__main__":
    main()
