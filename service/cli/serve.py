"""``loss-scoring serve``: the HTTP service in this process, or in several under a supervisor."""

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import uvicorn
from pydantic import ValidationError
from starlette.types import ASGIApp

from loss_scoring.service.api.start import Start
from loss_scoring.service.app import choose_device, create_app
from loss_scoring.service.early_stop import STOPS
from loss_scoring.service.environment import check_names
from loss_scoring.service.server.protocol import bounded
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.logs import configure
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.traces import tracing_from_environment

log = logging.getLogger(__name__)

_FIELDS = Settings.model_fields
_LEVELS = ("debug", "info", "warning", "error")
_FAILED, _CUT_OFF = 3, 1

_ACCEPTED_A_TURN, _IF_SHARED = 16, 2
"""libuv accepts one connection a turn of the event loop and socket. Of 300 that came at once to a
busy server, the last one waited for 0.97 s; with 16 handles on the socket it was 0.16 s. Where
several front ends share the socket, who takes 16 leaves none to the others: of 32 connections one
of two got 30; with 2 handles each, 18."""


class _Server(uvicorn.Server):
    """Drains on a signal, and exits 0; at once amid the start, when there is nothing to drain.

    A thread that compiles cannot be called off, and the event loop would wait for it to the end.
    uvicorn would raise the signal again once it has drained, and ends on a second one if that is
    SIGINT and it does not wait for the application, as it does while a device hangs.

    Args:
        config: What to serve.
        start: Tells how far the start is.
        patient: Whether a second signal says nothing new. A supervisor sends one to a front end
            that has it already from whoever tells all processes to end, as systemd does; and kills
            when it is to be at once.
    """

    def __init__(self, config: uvicorn.Config, start: Start, *, patient: bool) -> None:
        super().__init__(config)
        self._start = start
        self._patient = patient

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        """Drain; the second time end at once."""
        if not (self._start.done or self._start.failed):
            os._exit(0)
        if self.should_exit and not self._patient:
            os._exit(_CUT_OFF)
        self.should_exit = True

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


def _option(name: str, *flags: str) -> Any:
    variable = f"LOSS_SCORING_{name.upper()}"
    default = _FIELDS[name].default
    return typer.Option(*flags, help=f"{_FIELDS[name].description} [{variable}, {default}]")


def serve(  # noqa: PLR0913, PLR0917 - one flag a setting
    host: Annotated[str | None, _option("host")] = None,
    port: Annotated[int | None, _option("port")] = None,
    device: Annotated[str | None, _option("device")] = None,
    frontends: Annotated[int | None, _option("frontends")] = None,
    max_body_bytes: Annotated[int | None, _option("max_body_bytes")] = None,
    max_json_bytes: Annotated[int | None, _option("max_json_bytes")] = None,
    max_elements: Annotated[int | None, _option("max_elements")] = None,
    batch_elements: Annotated[int | None, _option("batch_elements")] = None,
    inline_elements: Annotated[int | None, _option("inline_elements")] = None,
    idle_inline_elements: Annotated[int | None, _option("idle_inline_elements")] = None,
    max_queued_elements: Annotated[int | None, _option("max_queued_elements")] = None,
    max_open_bytes: Annotated[int | None, _option("max_open_bytes")] = None,
    default_timeout_ms: Annotated[int | None, _option("default_timeout_ms")] = None,
    max_timeout_ms: Annotated[int | None, _option("max_timeout_ms")] = None,
    hung_s: Annotated[int | None, _option("hung_s")] = None,
    max_header_bytes: Annotated[int | None, _option("max_header_bytes")] = None,
    header_timeout_s: Annotated[float | None, _option("header_timeout_s")] = None,
    keep_alive_s: Annotated[int | None, _option("keep_alive_s")] = None,
    body_timeout_s: Annotated[float | None, _option("body_timeout_s")] = None,
    min_body_bytes_per_s: Annotated[int | None, _option("min_body_bytes_per_s")] = None,
    write_timeout_s: Annotated[float | None, _option("write_timeout_s")] = None,
    api_keys_file: Annotated[Path | None, _option("api_keys_file")] = None,
    auth_probes: Annotated[bool | None, _option("auth_probes")] = None,
    cors_origins: Annotated[str | None, _option("cors_origins")] = None,
    shutdown_s: Annotated[int | None, _option("shutdown_s")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
    log_format: Annotated[str | None, _option("log_format")] = None,
    access_log: Annotated[bool | None, _option("access_log")] = None,
) -> None:
    """Serve POST /score until SIGTERM or SIGINT; a flag wins over its environment variable."""
    given = {name: value for name, value in locals().items() if value is not None}
    start = Start(background=True)
    try:
        check_names(os.environ, _FIELDS)
        settings = Settings(**given)
        choose_device(settings.device)
        metrics = Metrics()
        app = (
            None
            if settings.frontends
            else create_app(settings, None, metrics, tracing_from_environment(), start)
        )
    except ValidationError as error:
        for fault in error.errors():
            where = "_".join(map(str, fault["loc"])) or "settings"
            typer.echo(f"{where}: {fault['msg']}", err=True)
        raise typer.Exit(2) from error
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    if app is None:
        # In place of this process: the supervisor needs no torch, and its memory.
        os.environ |= {f"LOSS_SCORING_{name.upper()}": str(given[name]) for name in given}
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # they wait until it listens to them
        os.execv(sys.executable, [sys.executable, "-P", "-m", "loss_scoring.service.supervisor"])  # noqa: S606
    run_server(app, settings, metrics, start)


def run_server(
    app: ASGIApp,
    settings: Settings,
    metrics: Metrics,
    start: Start,
    listening: Sequence[socket.socket] | None = None,
) -> None:
    """Serve an application until SIGTERM or SIGINT, on a socket of its own or on given ones."""
    configure(settings, "frontend")
    if listening is None:
        log.info("%s", settings.summary(str(choose_device(settings.device))))
    config = uvicorn.Config(
        app,
        http=bounded(settings, metrics),
        ws="none",
        timeout_keep_alive=settings.keep_alive_s,
        host=settings.host,
        port=settings.port,
        log_level=max(settings.log_level, "warning", key=_LEVELS.index),  # it says more below
        access_log=False,  # ours knows more and says less
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here asks for the client's address
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
    for one in sockets:
        # Whoever shares it, another front end, would be stuck in `accept` if this duplicate made it
        # a blocking one, if only for a moment.
        one.setblocking(False)
    more = [one.dup() for one in sockets for _ in range(accepted - 1)]
    server.run([*sockets, *more])  # it closes them all when it stops
    if start.failed or not server.started:
        sys.exit(_FAILED)
