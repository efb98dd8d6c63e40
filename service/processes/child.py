"""A child process, seen from its supervisor and from within.

A child is started with ``PARENT CONTROL`` and what else it needs as its arguments. Over the control
socket it sends messages of JSON, of which each is a heartbeat:

    {"ready": true, "device": name}      by a front end or a worker, once
    {"failed": why}                      by a worker that cannot start
    {"ended": status, "ending": ending}  by the fork server, when a worker has ended
    {}                                   while the event loop of the child turns
"""

import asyncio
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

log = logging.getLogger("loss_scoring.service.supervisor")

STARTING_S = 300
"""The first start compiles the kernels."""
_STABLE_S = 10
"""A child that lived so long is replaced without delay."""
_RETRY_S = 0.5
_HEARTBEAT_S = 0.5
_LONGEST_MESSAGE = 1 << 12
_PR_SET_PDEATHSIG = 1


class Child:
    """One process that a supervisor keeps running.

    Args:
        name: For the log.
        command: Gets the supervisor's id, the child's end of the control socket, ``inherited`` and
            ``arguments`` added.
        inherited: Descriptors of sockets.
        arguments: More; may be changed between two starts.
        clock: By which its silence is judged.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        inherited: Sequence[int] = (),
        *arguments: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock = clock
        self.arguments = arguments
        self._command = command
        self._inherited = inherited
        self._failures = 0
        self.ever_ready = False
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        inherited = (theirs.fileno(), *self._inherited)
        numbers = map(str, (os.getpid(), *inherited))
        with theirs:
            try:
                self.running = subprocess.Popen(  # noqa: S603 - our own commands
                    [*self._command, *numbers, *self.arguments],
                    pass_fds=inherited,
                    process_group=0,  # Ctrl-C is for the supervisor
                )
            except OSError:
                ours.close()
                raise
        self.control = ours
        self.ready = False
        self.due: float | None = None
        self._started, self._heartbeat = time.monotonic(), self._clock()

    @property
    def alive(self) -> bool:
        """Whether it runs and has not been reaped."""
        return self.running.returncode is None

    @property
    def serving(self) -> bool:
        """Whether it runs and is ready."""
        return self.alive and self.ready

    @property
    def hopeless(self) -> bool:
        """Whether it refused to start, and never was ready: no other start will succeed."""
        return not self.ever_ready and (self.running.returncode or 0) > 0

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have come, without waiting."""
        messages = []
        with suppress(OSError):
            while raw := self.control.recv(_LONGEST_MESSAGE):
                messages.append(json.loads(raw))
                self._heartbeat = self._clock()
        return messages

    def became_ready(self) -> None:
        self.ready = self.ever_ready = True

    def kill_if_silent(self, limit_s: float) -> bool:
        """Kill it if it runs and its last heartbeat is so old, or if starting far older.

        What it has sent must have been received.
        """
        silent_s = self._clock() - self._heartbeat
        if not self.alive or silent_s <= (limit_s if self.ready else STARTING_S):
            return False
        log.error("the %s %d does not answer", self.name, self.running.pid)
        self.signal(signal.SIGKILL)
        self.running.wait()
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal if it runs."""
        if self.alive:
            self.running.send_signal(number)

    def ended(self) -> bool:
        """Return whether it has ended since the last call, and if so plan its restart."""
        if self.due is not None or self.running.poll() is None:
            return False
        self.control.close()
        now = time.monotonic()
        self._failures = 0 if now - self._started > _STABLE_S else self._failures + 1
        self.due = now + (0.05 * 2 ** min(self._failures, 7) if self._failures > 1 else 0)
        log.warning("%s %d ended with %s", self.name, self.running.pid, self.running.returncode)
        return True

    def restart_if_due(self) -> bool:
        """Start it again if it is time to."""
        if self.due is None or self.hopeless or time.monotonic() < self.due:
            return False
        try:
            self._start()
        except OSError as error:  # no descriptors, no memory: that may pass, so all else goes on
            log.error("the %s cannot be started: %s", self.name, error)  # noqa: TRY400
            self.due = time.monotonic() + _RETRY_S
            return False
        return True


class Control:
    """The way to the supervisor, within a child.

    Args:
        parent: The process that started this one. When it ends, by whatever, so does this one.
        descriptor: The inherited one of the control socket.
    """

    def __init__(self, parent: int, descriptor: int) -> None:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os._exit(1)
        self._descriptor = descriptor
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(0)

    def inherited(self, parent: int) -> "Control":
        """Return the same for a process that this one, its parent, has just forked."""
        self._socket.detach()
        return Control(parent, self._descriptor)

    def send(self, **message: object) -> None:
        """Send a message, unless the supervisor has stopped reading."""
        with suppress(OSError):
            self._socket.send(json.dumps(message).encode())

    async def send_heartbeats(
        self, healthy: Callable[[], bool] = lambda: True, work: Callable[[], None] = lambda: None
    ) -> None:
        """Send heartbeats for as long as something is healthy, and do some work at each."""
        while healthy():
            await asyncio.sleep(_HEARTBEAT_S)
            work()
            self.send()
