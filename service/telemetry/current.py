"""What is known of the request that is being served, where it is served."""

from collections.abc import Mapping
from contextvars import ContextVar

REQUEST: ContextVar[Mapping[str, str]] = ContextVar("request")
"""What log lines say of it: ``request_id``, and if it is traced ``trace_id`` and ``span_id``."""

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""Its span as W3C Trace Context writes it, if that is recorded; batches link to it."""
