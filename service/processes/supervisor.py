"""Keeps N front ends and one device worker running.

It owns the listening socket, so that connections wait while a front end is replaced, and hands a
front end and the worker the two ends of a socket whenever one of them is new. It imports nothing
large and touches no request: there is little that could end it. Its children end when it does
(``service.processes.heartbeat``).
"""

import logging
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from loss_scoring.service.early_stop import STOPS
from loss_scoring.service.processes.child import STARTING_S, Child
from loss_scoring.service.processes.starts import FailedStarts
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.shared import SharedMetrics

log = logging.getLogger("loss_scoring.service.supervisor")

_TICK_S = 0.5
_GRACE_S = 2
_FAILED, _CUT_OFF, LOST = 3, 1, 70


def _command(module: str) -> tuple[str, ...]:
    return sys.executable, "-P", "-m", f"loss_scoring.service.processes.{module}"


class Supervisor:
    """Runs the service in several processes.

    Args:
        settings: Those of the service; children read theirs from the same environment.
        worker: The command of the device worker.
        frontend: The command of a front end.
        starts: Decides when no worker will ever be ready again.
    """

    def __init__(
        self,
        settings: Settings,
        worker: Sequence[str] = _command("worker"),
        frontend: Sequence[str] = _command("frontend"),
        starts: FailedStarts | None = None,
    ) -> None:
        self._settings = settings
        self._starts = starts or FailedStarts()
        self._commands = worker, frontend
        self._stops = 0
        self._signals, writes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        for stop in STOPS:
            signal.signal(stop, self._count_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # whoever became this process waited so
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _count_stop(self, *_: object) -> None:
        self._stops += 1

    def run(self) -> int:
        """Serve until a signal; return the exit status."""
        settings = self._settings
        self._began = time.monotonic()
        # Shared memory costs descriptors, and so do connections; children inherit this.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        where, v6 = (settings.host, settings.port), ":" in settings.host
        family = socket.AF_INET6 if v6 else socket.AF_INET
        both = v6 and socket.has_dualstack_ipv6()  # as where there is one process
        try:
            listening = socket.create_server(
                where, family=family, backlog=2048, dualstack_ipv6=both
            )
        except OSError as error:
            log.error("cannot listen: %s", error)  # noqa: TRY400 - that is all there is to know
            return _FAILED
        log.info("%s", settings.summary(f"device {settings.device}"))
        log.info("listening on http://%s:%d", *listening.getsockname()[:2])
        worker, frontend = self._commands
        self._metrics = SharedMetrics()
        self._worker = Child("worker", worker)
        self._frontends = [
            Child("front end", frontend, [listening.fileno()]) for _ in range(settings.frontends)
        ]
        self._children = [self._worker, *self._frontends]
        self._ending = "none"
        self._worker_id = 0
        self._device = ""
        self._reason = ""
        try:
            while not self._stops:
                if not self._keep_running():
                    return _FAILED
                if self._starts.too_many:
                    self._give_up()
                    return LOST
                self._wait()
            listening.close()
            return self._drain()
        finally:
            self._kill_all()
            self._metrics.close()

    def _wait(self) -> None:
        """Sleep until a signal, a message or the next tick."""
        with selectors.PollSelector() as selector:  # which takes no descriptor
            selector.register(self._signals, selectors.EVENT_READ)
            for child in self._children:
                if child.alive:
                    selector.register(child.control, selectors.EVENT_READ)
            selector.select(_TICK_S)
        with suppress(BlockingIOError):
            os.read(self._signals, 4096)
        self._reap_inherited()

    def _reap_inherited(self) -> None:
        """Reap whom it did not start: PID 1 of a container inherits the children of the killed.

        One of its own that has ended is left to ``Child.ended``, and the others to the next round.
        """
        own = {child.running.pid for child in self._children}
        with suppress(ChildProcessError):  # there is none at all
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in own:
                    break
                os.waitpid(ended.si_pid, 0)

    def _keep_running(self) -> bool:
        """Replace who has ended, bring together who is new; False if one can never start."""
        self._see_to_worker()
        for child in self._frontends:
            if child.ended():
                self._metrics.ended("frontend")
            child.restart_if_due()
            child.kill_if_silent(self._settings.hung_s)
        self._listen_to_frontends()
        if self._device and all(child.serving for child in self._children):
            seconds = time.monotonic() - self._began
            log.info("ready after %.1f s, the worker on %s", seconds, self._device)
            self._device = ""  # said once
        return not any(child.hopeless for child in self._children)

    def _listen_to_frontends(self) -> None:
        """Give a worker to whoever has none: who is new, and whom an introduction did not reach."""
        for child in self._frontends:
            if child.alive and any("ready" in message for message in child.hear()):
                child.became_ready()
                if self._worker.serving:
                    self._introduce(child)

    def _see_to_worker(self) -> None:
        fork_server = self._worker
        if fork_server.alive:
            self._listen_to_worker()
        hung = fork_server.kill_if_silent(self._settings.hung_s)  # the worker dies with it
        if hung and not fork_server.ready:
            self._reason = f"it was not ready after {STARTING_S} s"
        if fork_server.ended():
            code = fork_server.running.returncode
            self._worker_ended((1 if hung else 0) if fork_server.ready else code)
        fork_server.restart_if_due()
        if fork_server.serving:
            self._starts.sound()

    def _listen_to_worker(self) -> None:
        for message in self._worker.hear():
            if "ready" in message:
                self._worker.became_ready()
                if not self._worker_id:
                    self._device = message.get("device", "its device")
                self._worker_id = message["ready"]
                for child in self._frontends:
                    if child.serving:
                        self._introduce(child)
            elif "failed" in message:
                self._reason = message["failed"]
            elif "ended" in message:
                self._worker_ended(message["ended"])

    def _worker_ended(self, code: int) -> None:
        why, self._reason = self._reason or f"it ended with {code}", ""
        if not self._worker.ready:
            log.warning("the worker did not become ready: %s", why)
            self._starts.failed(why)
            return
        self._starts.sound()
        log.warning("the worker ended with %d", code)
        self._metrics.ended("worker")
        self._worker.ready = False
        killed = code in (0, -signal.SIGKILL)
        self._ending = "killed" if killed else "crashed"

    def _give_up(self) -> None:
        """Say why: whoever starts the service again can see more than this process, and do more."""
        starts = self._starts
        log.error(
            "giving up: no worker was ready for %.0f s, and %d starts failed, the last one as %s",
            *(starts.seconds, starts.count, starts.why),
        )

    def _introduce(self, child: Child) -> None:
        """Give a front end and the worker the ends of a socket.

        Whatever goes wrong, the front end has no worker then, and says so in its next beat.
        """
        try:
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            log.warning("the %s has to wait for its worker: %s", child.name, error)
            return
        with one, other:
            self._worker.send(self._worker_id, one.fileno())
            child.send([self._worker_id, self._ending], other.fileno())

    def _drain(self) -> int:
        """Let the front ends finish what they accepted, then end the worker."""
        until = time.monotonic() + self._settings.shutdown_s + _GRACE_S
        accepting = [child for child in self._frontends if child.serving]
        for child in self._frontends:
            child.signal(signal.SIGTERM)
        while self._stops == 1 and time.monotonic() < until:
            if not any(child.alive for child in self._frontends):
                return _CUT_OFF if any(child.running.returncode for child in accepting) else 0
            self._wait()
            self._see_to_worker()  # what is being finished may need another one
            self._listen_to_frontends()
            for child in self._frontends:
                child.ended()
        log.warning("ending with requests in progress")
        return _CUT_OFF

    def _kill_all(self) -> None:
        for child in self._children:
            child.signal(signal.SIGKILL)
        for child in self._children:
            child.running.wait()
