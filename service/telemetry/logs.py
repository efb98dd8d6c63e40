"""Logs: a line of JSON each, or text for people at a terminal.

The standard library's logging with one formatter: structlog and python-json-logger are maintained,
but would add a dependency for thirty lines. Neither headers, queries nor bodies are ever logged, so
no key is; of a request there are its id and, when it is traced, its trace.
"""

import json
import logging
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.current import REQUEST

_NOBODY: Mapping[str, str] = {}
_TEXT = "%(asctime)s %(levelname)s {role}: %(message)s"


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, message, role of the process, its id, request and exception.

    What a call gives as ``extra={"fields": {...}}`` is written beside them.
    """

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "role": self._role,
            "pid": record.process,
            **REQUEST.get(_NOBODY),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half a surrogate pair, or an integer of more than 64 bits
            return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Writes a line of text that ends with the id of the request."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the line without its traceback."""
        request = REQUEST.get(_NOBODY).get("request_id")
        line = super().formatMessage(record)
        return line if request is None or request in line else f"{line} [{request}]"


def configure(settings: Settings, role: str) -> None:
    """Let everything that logs in this process do so as the settings say, on standard error.

    Args:
        settings: Level and format.
        role: What kind of process this is.
    """
    format_ = settings.log_format
    if format_ == "auto":
        format_ = "text" if sys.stderr.isatty() else "json"
    spoken = logging.StreamHandler(sys.stderr)
    spoken.setFormatter(
        JsonFormatter(role) if format_ == "json" else TextFormatter(_TEXT.format(role=role))
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[spoken], force=True)
    logging.captureWarnings(capture=True)
    if format_ == "json":  # tracebacks of the interpreter are lines of no JSON
        sys.excepthook = _log_end
        threading.excepthook = lambda end: (
            None
            if end.exc_value is None
            else _log_end(end.exc_type, end.exc_value, end.exc_traceback)
        )


def _log_end(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("service").critical(
        "uncaught %s", kind.__name__, exc_info=(kind, error, traceback)
    )
