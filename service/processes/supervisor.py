"""Keeps N front ends and one device worker running.

It owns the listening sockets, that of HTTP and that of the worker, so that connections wait while a
process is replaced. It imports nothing large and touches no request: there is little that could end
it. Its children end when it does (``child.Control``).
"""

import logging
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from loss_scoring.service.early_stop import STOPS
from loss_scoring.service.limits.awake import TICK_S, AwakeClock
from loss_scoring.service.processes.child import STARTING_S, Child
from loss_scoring.service.processes.endings import LOST, Ending, FailedStarts
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.multiprocess import MetricsDirectory, forget_gauges

log = logging.getLogger("loss_scoring.service.supervisor")

_GRACE_S = 4
"""After ``shutdown_s``: longer than a front end takes to end by itself."""
_KILLED_S = 0.5
_FAILED, _CUT_OFF = 3, 1


def _command(module: str) -> tuple[str, ...]:
    return sys.executable, "-P", "-m", f"loss_scoring.service.processes.{module}"


class Supervisor:
    """Runs the service in several processes.

    Args:
        settings: Those of the service; children read theirs from the same environment.
        worker: The command of the device worker's fork server.
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
        self._awake = AwakeClock()
        self._signals, writes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        for stop in STOPS:
            signal.signal(stop, self._count_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # blocked until this process listens
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _count_stop(self, *_: object) -> None:
        self._stops += 1

    def run(self) -> int:
        """Serve until a signal; return the exit status."""
        settings = self._settings
        # Shared memory costs descriptors, and so do connections; children inherit this.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        where, v6 = (settings.host, settings.port), ":" in settings.host
        family = socket.AF_INET6 if v6 else socket.AF_INET
        both = v6 and socket.has_dualstack_ipv6()  # as where there is one process
        try:
            http = socket.create_server(where, family=family, backlog=2048, dualstack_ipv6=both)
        except OSError as error:
            log.error("cannot listen: %s", error)  # noqa: TRY400 - that is all there is to know
            return _FAILED
        log.info("%s", settings.summary(f"device {settings.device}"))
        host, port = http.getsockname()[:2]
        log.info("listening on http://%s:%d", f"[{host}]" if v6 else host, port)
        self._metrics = MetricsDirectory()
        self._start(http)
        try:
            while not self._stops:
                if not self._keep_running():
                    return _FAILED
                if self._starts.too_many:
                    self._give_up()
                    return LOST
                self._wait()
            http.close()
            return self._drain()
        finally:
            self._kill_all()
            self._metrics.close()

    def _start(self, http: socket.socket) -> None:
        self._began = time.monotonic()
        self._device = self._failure = ""
        self._was_ready = False
        workers = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        workers.bind("")  # Linux chooses a name that is no file
        workers.listen()
        name = workers.getsockname()[1:].decode()
        worker, frontend = self._commands
        clock = self._awake.now
        self._worker = Child("worker", worker, [workers.fileno()], Ending.NONE.value, clock=clock)
        self._workers = workers  # as long as the supervisor, for the workers to come
        self._frontends = [
            Child("front end", frontend, [http.fileno()], name, str(slot), clock=clock)
            for slot in range(self._settings.frontends)
        ]
        self._children = [self._worker, *self._frontends]

    def _wait(self) -> None:
        """Sleep until a signal, a message or the next tick."""
        with selectors.PollSelector() as selector:  # which takes no descriptor
            selector.register(self._signals, selectors.EVENT_READ)
            for child in self._children:
                if child.alive:
                    selector.register(child.control, selectors.EVENT_READ)
            selector.select(TICK_S)
        self._awake.tick()
        with suppress(BlockingIOError):
            os.read(self._signals, 4096)
        self._reap_inherited()

    def _reap_inherited(self) -> None:
        """Reap processes it did not start: PID 1 of a container inherits those of killed parents.

        One of its own that has ended is left to ``Child.ended``, and the others to the next round.
        """
        own = {child.running.pid for child in self._children}
        with suppress(ChildProcessError):  # there is none at all
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in own:
                    break
                os.waitpid(ended.si_pid, 0)

    def _keep_running(self) -> bool:
        """Replace processes that have ended; return False if one can never start."""
        self._metrics.restore()
        self._check_worker()
        self._receive_from_frontends()
        for slot, child in enumerate(self._frontends):
            if child.ended():
                self._metrics.count_restart("frontend")
                forget_gauges("frontend", slot)
            child.restart_if_due()
            child.kill_if_silent(self._settings.hung_s)
        if not self._was_ready and all(child.serving for child in self._children):
            self._was_ready = True
            seconds = time.monotonic() - self._began
            log.info("ready after %.1f s, the worker on %s", seconds, self._device)
        return not any(child.hopeless for child in self._children)

    def _receive_from_frontends(self) -> None:
        for child in self._frontends:
            if child.alive and any("ready" in message for message in child.receive()):
                child.became_ready()

    def _check_worker(self) -> None:
        fork_server = self._worker
        if fork_server.alive:
            self._receive_from_worker()
        hung = fork_server.kill_if_silent(self._settings.hung_s)  # the worker dies with it
        if hung and not fork_server.ready:
            self._failure = f"it was not ready after {STARTING_S} s"
        if fork_server.ended():
            forget_gauges("worker")
            status = fork_server.running.returncode
            self._worker_ended(status, Ending.CRASHED if hung else Ending.KILLED)
        fork_server.restart_if_due()
        if fork_server.serving:
            self._starts.reset()

    def _receive_from_worker(self) -> None:
        for message in self._worker.receive():
            if "ready" in message:
                self._worker.became_ready()
                self._device = message.get("device", "its device")
            elif "failed" in message:
                self._failure = message["failed"]
            elif "ended" in message:
                self._worker_ended(message["ended"], Ending(message["ending"]))

    def _worker_ended(self, status: int, ending: Ending) -> None:
        why, self._failure = self._failure or f"it ended with {status}", ""
        if not self._worker.ready:
            log.warning("the worker did not become ready: %s", why)
            self._starts.add(why)
            return
        self._starts.reset()
        log.warning("the worker ended with %d", status)
        self._metrics.count_restart("worker")
        self._worker.ready = False
        self._worker.arguments = (ending.value,)  # for the next fork server

    def _give_up(self) -> None:
        """Log why: an orchestrator or an operator can see more than this process, and do more."""
        starts = self._starts
        log.error(
            "giving up: no worker was ready for %.0f s, and %d starts failed, the last one as %s",
            *(starts.seconds, starts.count, starts.why),
        )

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
            self._check_worker()  # accepted requests may need another one
            self._receive_from_frontends()
            for child in self._frontends:
                child.ended()
        log.warning("ending with requests in progress")
        return _CUT_OFF

    def _kill_all(self) -> None:
        for child in self._children:
            child.signal(signal.SIGKILL)
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it; it dies with us
                child.running.wait(_KILLED_S)
