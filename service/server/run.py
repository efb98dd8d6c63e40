"""uvicorn as this service runs it: its settings, sockets and signals."""

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import uvicorn
from starlette.types import ASGIApp

from loss_scoring.service.api.context import ContextMiddleware
from loss_scoring.service.api.start import Start
from loss_scoring.service.early_stop import STOPS
from loss_scoring.service.server.protocol import bounded
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_LEVELS = ("debug", "info", "warning", "error")
_FAILED, _CUT_OFF = 3, 1
_GRACE_S = 2
"""After ``shutdown_s``, for what comes after the requests."""

_ACCEPTED_A_TURN, _IF_SHARED = 16, 2
"""libuv accepts one connection a turn of the event loop and socket. Of 300 that came at once to a
busy server, the last one waited for 0.97 s; with 16 handles on the socket it was 0.16 s. Where
several front ends share the socket, the first to accept 16 leaves none to the others: of 32
connections the first of two got 30; with 2 handles each, 18."""


class _Server(uvicorn.Server):
    """Drains on a signal, and exits 0; at once amid the start, when there is nothing to drain.

    A thread that compiles cannot be called off, and the event loop would wait for it to the end.
    uvicorn would raise the signal again once it has drained, and ends on a second one if that is
    SIGINT and it does not wait for the application, as it does while a device hangs.

    Args:
        config: What to serve.
        start: Tells how far the start is.
        patient: Whether to ignore a second signal. A supervisor sends its own to a front end that
            may have been signalled with all processes, as systemd does; it kills where the end must
            be immediate.
    """

    def __init__(self, config: uvicorn.Config, start: Start, *, patient: bool) -> None:
        super().__init__(config)
        self._start = start
        self._patient = patient
        self._stopping = threading.Event()
        threading.Thread(target=self._end_in_time, name="end", daemon=True).start()

    def _end_in_time(self) -> None:
        """End the process once its time is over, whatever some thread or library still does."""
        self._stopping.wait()
        time.sleep((self.config.timeout_graceful_shutdown or 0) + _GRACE_S)
        os._exit(0)  # without a line in the log, whose lock another thread may have

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        """Drain; the second time end at once."""
        if not (self._start.done or self._start.failed):
            os._exit(0)
        if self.should_exit:
            if not self._patient:
                os._exit(_CUT_OFF)
            return
        self.should_exit = True
        self._stopping.set()

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to end, as when the start has failed."""
        return await super().on_tick(counter) or self._start.failed

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.started:
            self._start.listens(_addresses(sockets))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain."""
        log.info("finishing %d requests", len(self.server_state.tasks))
        await super().shutdown(sockets)
        log.info("stopped")


def _addresses(sockets: Sequence[socket.socket] | None) -> str:
    names = dict.fromkeys(each.getsockname()[:2] for each in sockets or ())
    return ", ".join(
        f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        for host, port in names
    )


def run_server(
    app: ASGIApp,
    settings: Settings,
    metrics: Metrics,
    start: Start,
    listening: Sequence[socket.socket] | None = None,
) -> None:
    """Serve an application until SIGTERM or SIGINT, on a socket of its own or on given ones."""
    config = uvicorn.Config(
        app,
        http=bounded(settings, metrics, app if isinstance(app, ContextMiddleware) else None),
        ws="none",
        host=settings.host,
        port=settings.port,
        log_level=max(
            settings.log_level, "warning", key=_LEVELS.index
        ),  # at lower levels it logs more
        access_log=False,  # ours has more fields, in fewer words
        log_config=None,
        server_header=False,
        proxy_headers=False,  # clients behind a proxy are known by their keys
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    server = _Server(config, start, patient=listening is not None)
    for stop in STOPS:
        signal.signal(stop, server.handle_exit)
    # A thread that wants the interpreter asks for it after this long. The event loop is such a
    # thread while a large request is decoded; the default of 5 ms is its latency then.
    sys.setswitchinterval(0.0005)
    # A full garbage collection walks half a million objects of the libraries; a large request
    # used to start several.
    gc.collect()
    gc.freeze()
    sockets = [config.bind_socket()] if listening is None else listening
    accepted = _ACCEPTED_A_TURN if listening is None else _IF_SHARED
    for shared in sockets:
        # Another front end that shares it would hang in `accept` if this duplicate made it
        # blocking, even for a moment.
        shared.setblocking(False)  # noqa: FBT003 - positional only
    more = [shared.dup() for shared in sockets for _ in range(accepted - 1)]
    server.run([*sockets, *more])  # it closes them all when it stops
    _end(_FAILED if start.failed or not server.started else 0)


def _end(status: int) -> NoReturn:
    """End the process at once.

    The interpreter would wait for threads, or crash in those that still work, for nobody, while it
    takes down what they use.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed at the other end, or here
            stream.flush()
    os._exit(status)
