"""What operators see: metrics, logs and traces. Here, what they know of the present request."""

from collections.abc import Mapping
from contextvars import ContextVar

PROBES = frozenset(
    {"/livez", "/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
)
"""Paths that orchestrators poll: they leave no trace, and need no key unless a setting says so."""

REQUEST: ContextVar[Mapping[str, str]] = ContextVar("request")
"""What log lines say of it: ``request_id``, and if it is traced ``trace_id`` and ``span_id``."""

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""Its span as W3C Trace Context writes it, if that is recorded; batches link to it."""
