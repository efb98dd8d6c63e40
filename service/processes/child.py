"""One process that a supervisor keeps running."""

import json
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

log = logging.getLogger("loss_scoring.service.supervisor")

STARTING_S = 300
"""The first start compiles the kernels."""
_SOUND_S = 10
"""A child that lived so long is replaced without delay."""
_RETRY_S = 0.5
_LONGEST_MESSAGE = 1 << 12


class Child:
    """One process and what becomes of it.

    Args:
        name: For the log.
        command: Gets the supervisor's id, its end of the control socket and ``listening`` added.
        listening: Descriptors to inherit.
    """

    def __init__(self, name: str, command: Sequence[str], listening: Sequence[int] = ()) -> None:
        self.name = name
        self._command = command
        self._listening = listening
        self._failures = 0
        self.ever_ready = False
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        inherited = (theirs.fileno(), *self._listening)
        with theirs:
            try:
                self.running = subprocess.Popen(  # noqa: S603 - our own commands
                    [*self._command, *map(str, (os.getpid(), *inherited))],
                    pass_fds=inherited,
                    process_group=0,  # Ctrl-C is for the supervisor
                )
            except OSError:
                ours.close()
                raise
        self.control = ours
        self.ready = False
        self.due: float | None = None
        self._started = self._heard = time.monotonic()

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
        """Whether it refused to start, and ever did: no other start will go better."""
        return not self.ever_ready and (self.running.returncode or 0) > 0

    def hear(self) -> list[dict[str, Any]]:
        """Take its messages."""
        messages = []
        with suppress(OSError):
            while raw := self.control.recv(_LONGEST_MESSAGE):
                messages.append(json.loads(raw))
                self._heard = time.monotonic()
        return messages

    def became_ready(self) -> None:
        """Note that it is."""
        self.ready = self.ever_ready = True

    def kill_if_silent(self, limit_s: float) -> bool:
        """Kill it if it runs and was not heard of for so long, or if starting for far longer."""
        silent_s = time.monotonic() - self._heard
        if not self.alive or silent_s <= (limit_s if self.ready else STARTING_S):
            return False
        log.error("the %s %d does not answer", self.name, self.running.pid)
        self.signal(signal.SIGKILL)
        self.running.wait()
        return True

    def send(self, message: object, descriptor: int) -> None:
        """Send a message and a descriptor; one that does not listen is not waited for."""
        with suppress(OSError):
            socket.send_fds(self.control, [json.dumps(message).encode()], [descriptor])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal if it runs."""
        if self.alive:
            self.running.send_signal(number)

    def ended(self) -> bool:
        """Tell whether it has ended since, and if so plan its return."""
        if self.due is not None or self.running.poll() is None:
            return False
        self.control.close()
        now = time.monotonic()
        self._failures = 0 if now - self._started > _SOUND_S else self._failures + 1
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
