"""The device worker's process: ``python -m loss_scoring.service.processes.worker PARENT CONTROL``.

A supervisor starts it; nobody else needs to. What it starts is a nursery: it imports all that is
slow to import, compiles the kernels of the CPU, and forks the worker, so that the next one is there
in a twentieth of a second when one dies. The nursery must not touch CUDA, which does not survive a
fork; the worker opens the device itself.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import uvloop

from loss_scoring.core.machine import choose_device
from loss_scoring.service.app import watch_device
from loss_scoring.service.engine.compilation import announce_compilation
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.processes.channel import Channel
from loss_scoring.service.processes.heartbeat import beat, become_child
from loss_scoring.service.processes.host import Host
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.logs import configure
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.shared import take_seat
from loss_scoring.service.telemetry.traces import tracing_from_environment

log = logging.getLogger(__name__)

_UNFIT, _CANNOT_START, _LOST = 0, 3, 70
"""How a worker ends; of an unfit one the supervisor says that it was killed."""
_SOUND_S = 1
"""Who lived so long is replaced without delay."""
_LONGEST_DELAY_S = 1
_LONGEST_REASON = 300
"""Letters, which JSON may write as 12 bytes each; the supervisor takes messages of 4096."""


def main(make: Callable[[torch.device], DeviceWorker] = DeviceWorker) -> None:
    """Run workers, one after another, on the device that the settings name.

    Args:
        make: Makes the owner of the device.
    """
    # Whoever tells all processes to end, as systemd does, means the supervisor: it still needs
    # a worker to drain, and ends it then.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_IGN)
    parent, number = map(int, sys.argv[-2:])
    control = become_child(parent, number)
    settings = Settings.from_environment()
    configure(settings, "worker")
    announce_compilation()
    no_cuda = settings.device == "auto" and not Path("/dev/nvidiactl").exists()
    if settings.device == "cpu" or no_cuda:
        try:
            make(torch.device("cpu")).warm_up()
        except Exception as error:
            _tell(control, error)
            raise
    gc.collect()
    gc.freeze()  # shared with the workers, as long as nobody writes to it
    early = 0
    while True:
        started = time.monotonic()
        nursery, worker = os.getpid(), os.fork()
        if not worker:
            _run(settings, make, become_child(nursery, control.detach()))
        _, status = os.waitpid(worker, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == _CANNOT_START:
            sys.exit(code)
        early = early + 1 if time.monotonic() - started < _SOUND_S else 0
        with suppress(OSError):
            control.send(json.dumps({"ended": code}).encode())
        time.sleep(min(0.05 * 2 ** (early - 4), _LONGEST_DELAY_S) if early > 3 else 0)


def _run(
    settings: Settings, make: Callable[[torch.device], DeviceWorker], control: socket.socket
) -> None:
    """Serve front ends until the process is ended; never returns."""
    try:
        uvloop.run(_serve(settings, make(choose_device(settings.device)), control))
    except Exception as error:
        log.exception("the worker cannot start")
        _tell(control, error)
    os._exit(_CANNOT_START)


def _tell(control: socket.socket, error: Exception) -> None:
    """Let the supervisor know why there is no worker."""
    first_line = str(error).partition("\n")[0]  # CUDA adds advice
    why = f"{type(error).__name__}: {first_line}"[:_LONGEST_REASON]
    with suppress(OSError):
        control.send(json.dumps({"failed": why}).encode())


async def _serve(settings: Settings, worker: DeviceWorker, control: socket.socket) -> None:
    host = Host(worker, settings.batch_elements, _die, settings.hung_s, lambda: os._exit(_UNFIT))
    tracing = tracing_from_environment()
    if tracing is not None:
        host.engine.on_traced = tracing.batch
    await host.engine.start()

    def meet(worker: int, descriptors: list[int]) -> None:
        if not descriptors:
            log.warning("no descriptor is left to meet a front end")
            return
        end = socket.socket(fileno=descriptors[0])
        if worker == os.getpid():
            host.connect(end)
        else:  # it was meant for one that has died
            end.close()

    channel = Channel(control, meet, _die)
    channel.open()
    channel.send({"ready": os.getpid(), "device": str(worker.device)})
    metrics = Metrics(take_seat("worker"), "worker")
    watch_device(metrics, worker)
    publishing = asyncio.create_task(metrics.keep_published())
    await beat(channel, sound=lambda: not host.engine.lost)
    publishing.cancel()
    _die()


def _die() -> None:
    """End at once: threads may be stuck on the device, and cleaning up needs it."""
    os._exit(_LOST)


if __name__ == "__main__":
    main()
