"""Logs: lines of JSON, or text for people at a terminal.

The standard library's logging with one formatter: structlog and python-json-logger are maintained,
but would add a dependency for thirty lines. Neither headers, queries nor bodies are ever logged, so
no key is; a line has the id of its request and, when that is traced, its trace.
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

from loss_scoring.service.errors import printable
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry import REQUEST

_NO_REQUEST: Mapping[str, str] = {}
_TEXT = "%(asctime)s %(levelname)s {role}: %(message)s"


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, message, role of the process, its id, request and exception.

    The fields of ``extra={"fields": {...}}`` in a call are written beside them.
    """

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "role": self._role,
            "pid": record.process,
            **REQUEST.get(_NO_REQUEST),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            text = orjson.dumps(line, default=str).decode()
        except TypeError:  # half a surrogate pair, or an integer of more than 64 bits
            text = json.dumps(line, default=str)
        # JSON lets controls of terminals pass: DEL, those beside Latin-1, and of the direction.
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else _escaped(c) for c in text)


class TextFormatter(logging.Formatter):
    """Writes a line of text that ends with the id of the request.

    Tracebacks are further lines, indented, so that no text of a stranger looks like a line.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        request = REQUEST.get(_NO_REQUEST).get("request_id")
        line = super().formatMessage(record)
        line = line if request is None or request in line else f"{line} [{request}]"
        return printable(line)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)


def configure(settings: Settings, role: str) -> None:
    """Make all loggers of this process write to standard error as the settings say.

    Args:
        settings: Level and format.
        role: What kind of process this is.
    """
    format_ = settings.log_format
    if format_ == "auto":
        format_ = "text" if sys.stderr.isatty() else "json"
    as_json, text = JsonFormatter(role), TextFormatter(_TEXT.format(role=role))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(as_json if format_ == "json" else text)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # Tracebacks of the interpreter are no lines of JSON, and show whatever a stranger wrote.
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda thread: (
        None
        if thread.exc_value is None
        else _log_uncaught(thread.exc_type, thread.exc_value, thread.exc_traceback)
    )


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        raised = kind, error, traceback
        logging.getLogger("service").critical("uncaught %s", kind.__name__, exc_info=raised)
