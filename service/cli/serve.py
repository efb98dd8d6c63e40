"""``loss-scoring serve``: the HTTP service in this process, or in several under a supervisor."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from loss_scoring.service.early_stop import STOPS
from loss_scoring.service.environment import check_names
from loss_scoring.service.settings import Settings

log = logging.getLogger(__name__)

_FIELDS = Settings.model_fields


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
    auth_pages: Annotated[bool | None, _option("auth_pages")] = None,
    cors_origins: Annotated[str | None, _option("cors_origins")] = None,
    shutdown_s: Annotated[int | None, _option("shutdown_s")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
    log_format: Annotated[str | None, _option("log_format")] = None,
    access_log: Annotated[bool | None, _option("access_log")] = None,
) -> None:
    """Serve POST /score until SIGTERM or SIGINT; a flag wins over its environment variable."""
    given = {name: value for name, value in locals().items() if value is not None}
    from loss_scoring.core.machine import choose_device
    from loss_scoring.service.api.start import Start
    from loss_scoring.service.app import create_app
    from loss_scoring.service.server.run import run_server
    from loss_scoring.service.telemetry.logs import configure
    from loss_scoring.service.telemetry.metrics import Metrics
    from loss_scoring.service.telemetry.traces import tracing_from_environment

    start = Start(background=True)
    try:
        check_names(os.environ, _FIELDS)
        settings = Settings(**given)
        chosen = choose_device(settings.device)
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
        os.execv(sys.executable, [sys.executable, "-P", "-m", "loss_scoring.service.processes"])  # noqa: S606
    configure(settings, "frontend")
    log.info("%s", settings.summary(str(chosen)))
    run_server(app, settings, metrics, start)
