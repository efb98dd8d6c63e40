"""The device worker's process.

``python -m loss_scoring.service.processes.worker PARENT CONTROL LISTENING ENDING``

A supervisor starts it, as a fork server: it imports all that is slow to import, compiles the
kernels of the CPU, and forks the worker, so that the next one is there in a twentieth of a second
when one dies. The fork server must not touch CUDA, which does not survive a fork; the worker opens
the device itself. Front ends connect to the inherited socket, which the supervisor owns: those that
come while there is no worker wait there for the next one.
"""

import asyncio
import gc
import logging
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import uvloop

from loss_scoring.core.machine import Device, choose_device, is_cpu
from loss_scoring.service.app import watch_device
from loss_scoring.service.engine.worker import DeviceWorker, announce_compilation
from loss_scoring.service.processes.child import Control
from loss_scoring.service.processes.endings import CANNOT_START, LOST, UNFIT, Ending
from loss_scoring.service.processes.host import Host
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.logs import configure
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.multiprocess import count_as, forget_gauges
from loss_scoring.service.telemetry.traces import tracing_from_environment

log = logging.getLogger(__name__)

_STABLE_S = 1
"""A worker that lived so long is replaced without delay."""
_LONGEST_DELAY_S = 1
_LONGEST_REASON = 300
"""Letters, which JSON may write as 12 bytes each; the supervisor takes messages of 4096."""


def main(make: Callable[[Device], DeviceWorker] = DeviceWorker) -> None:
    """Run workers, one after another, on the device that the settings name.

    Args:
        make: Makes the owner of the device.
    """
    # A signal to all processes, as systemd sends it, is meant for the supervisor: it still needs
    # a worker to drain, and ends it then.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_IGN)
    parent, descriptor, listening = map(int, sys.argv[1:4])
    ending = Ending(sys.argv[4])
    control = Control(parent, descriptor)
    settings = Settings.from_environment()
    configure(settings, "worker")
    announce_compilation()
    if is_cpu(settings.device):
        try:
            make(Device("cpu")).warm_up()
        except Exception as error:
            control.send(failed=_reason(error))
            raise
    gc.collect()
    gc.freeze()  # shared with the workers, as long as none writes to it
    was_ready = mmap.mmap(-1, 1)  # which the worker shares
    early = 0
    while True:
        started = time.monotonic()
        was_ready[0] = 0
        fork_server, worker = os.getpid(), os.fork()
        if not worker:
            process = _Worker(settings, control.inherited(fork_server), was_ready)
            process.run(make, socket.socket(fileno=listening), ending)
        _, code = os.waitpid(worker, 0)
        status = os.waitstatus_to_exitcode(code)
        if status == CANNOT_START:
            sys.exit(status)
        forget_gauges("worker")
        if was_ready[0]:  # else no front end was connected to it
            ending = Ending.of(status)
        early = early + 1 if time.monotonic() - started < _STABLE_S else 0
        control.send(ended=status, ending=ending.value)
        time.sleep(min(0.05 * 2 ** (early - 4), _LONGEST_DELAY_S) if early > 3 else 0)


class _Worker:
    """The process that owns the device."""

    def __init__(self, settings: Settings, control: Control, was_ready: mmap.mmap) -> None:
        self._settings = settings
        self._control = control
        self._was_ready = was_ready

    def run(
        self,
        make: Callable[[Device], DeviceWorker],
        listening: socket.socket,
        before: Ending,
    ) -> None:
        """Serve front ends until the process is ended; never returns."""
        try:
            worker = make(choose_device(self._settings.device))
            uvloop.run(self._serve(worker, listening, before))
        except Exception as error:
            log.exception("the worker cannot start")
            self._control.send(failed=_reason(error))
        os._exit(CANNOT_START)

    async def _serve(self, worker: DeviceWorker, listening: socket.socket, before: Ending) -> None:
        settings = self._settings
        host = Host(worker, settings.batch_elements, _end_lost, settings.hung_s, _end_unfit, before)
        tracing = tracing_from_environment()
        if tracing is not None:
            host.engine.on_traced = tracing.batch
        await host.engine.start()
        self._was_ready[0] = 1
        listening.settimeout(0)
        asyncio.get_running_loop().add_reader(listening, _accept, listening, host)
        self._control.send(ready=True, device=str(worker.device))
        metrics = Metrics(count_as("worker"), "worker")
        watch_device(metrics, worker)
        publishing = asyncio.create_task(metrics.keep_published())
        await self._control.send_heartbeats(lambda: not host.engine.lost)
        publishing.cancel()
        _end_lost()


def _accept(listening: socket.socket, host: Host) -> None:
    """Connect the front ends that wait, but no process of another user or container."""
    try:
        with suppress(BlockingIOError):
            while True:
                end, _ = listening.accept()
                peer = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
                pid, user, _ = struct.unpack("3i", peer)
                if pid and user == os.getuid():  # of another container: it has no id in this one
                    host.connect(end)
                else:
                    end.close()
    except OSError:  # such as no more descriptors; a fresh worker has them
        log.exception("a front end cannot be connected")
        _end_unfit()


def _reason(error: Exception) -> str:
    """Return why there is no worker, for the supervisor."""
    first_line = str(error).partition("\n")[0]  # CUDA adds advice
    return f"{type(error).__name__}: {first_line}"[:_LONGEST_REASON]


def _end_lost() -> None:
    """End at once: threads may be stuck on the device, and cleaning up needs it."""
    os._exit(LOST)


def _end_unfit() -> None:
    os._exit(UNFIT)


if __name__ == "__main__":
    main()
