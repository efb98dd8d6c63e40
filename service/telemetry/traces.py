"""OpenTelemetry traces: a span a request, a span a batch that links to the requests in it.

A few lines on the SDK, since neither the ASGI instrumentation nor FastAPI's own support fits:
``POST /score`` does not go through FastAPI, and neither knows stages or batches. The SDK is an
extra, ``pip install loss-scoring[otel]``, imported only where the environment asks for traces.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags

from loss_scoring.service.telemetry import PROBES, REQUEST, TRACEPARENT
from loss_scoring.service.telemetry.metrics import RequestOutcome

log = logging.getLogger(__name__)

_ASKS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_FLUSH_MS = 1000


class Tracing:
    """Makes spans.

    Args:
        provider: Where they go.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer: trace.Tracer = provider.get_tracer("loss-scoring")

    def begin(
        self, method: str, path: str, headers: Mapping[bytes, bytes], client: str
    ) -> Span | None:
        """Begin the span of a request, as a child of its sender's; None for a probe.

        Neither query nor headers become part of it.
        """
        if path in PROBES:
            return None
        carrier = {name.decode("latin-1"): text.decode("latin-1") for name, text in headers.items()}
        attributes = {"http.request.method": method, "url.path": path, "client.address": client}
        span = self._tracer.start_span(
            method, propagate.extract(carrier), SpanKind.SERVER, attributes
        )
        if span.is_recording():
            context = span.get_span_context()
            ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
            REQUEST.set({**REQUEST.get(), **ids})
            TRACEPARENT.set(_traceparent(context))
        return span

    def end(self, span: Span, outcome: RequestOutcome, request_id: str) -> None:
        if span.is_recording():
            span.update_name(f"{span.attributes['http.request.method']} {outcome.route}")  # type: ignore[attr-defined]
            span.set_attributes(
                {
                    "http.route": outcome.route,
                    "http.response.status_code": outcome.status,
                    "loss_scoring.request_id": request_id,
                    "loss_scoring.format": outcome.format,
                    **({} if outcome.reason is None else {"error.type": outcome.reason}),
                    **{f"loss_scoring.{name}_s": s for name, s in outcome.stages.items()},
                }
            )
            if outcome.status >= 500:
                span.set_status(StatusCode.ERROR)
        span.end()

    def batch(self, traceparents: Sequence[str | None], elements: int, seconds: float) -> None:
        """Make the span of a batch that has just ended, unless none of its requests is traced."""
        given = map(_context, filter(None, dict.fromkeys(traceparents)))
        contexts = [context for context in given if context.is_valid]
        if not contexts:
            return
        now = time.time_ns()
        span = self._tracer.start_span(
            "batch",
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            attributes={
                "loss_scoring.elements": elements,
                "loss_scoring.pieces": len(traceparents),
            },
            links=[Link(context) for context in contexts],
            start_time=now - int(seconds * 1e9),
        )
        span.end(now)

    def flush(self) -> None:
        """Export finished spans; blocks, for some seconds at most.

        The SDK's own exporter ignores the limit, and tries a dead collector for a minute.
        """
        flushing = threading.Thread(
            target=self._provider.force_flush, args=(_FLUSH_MS,), name="flush", daemon=True
        )
        flushing.start()
        flushing.join(_FLUSH_MS / 1e3)


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _context(traceparent: str) -> SpanContext:
    parts = _TRACEPARENT.fullmatch(traceparent)
    if parts is None:  # another process wrote it
        return trace.INVALID_SPAN_CONTEXT
    trace_id, span_id, flags = (int(part, 16) for part in parts.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


def tracing_from_environment() -> Tracing | None:
    """Return what the standard OTEL_* variables ask for; None if that is nothing.

    ``OTEL_TRACES_EXPORTER`` names exporters (otlp, console, none), an OTLP endpoint alone means
    otlp. Sampler, resource, batching and exporter read their own variables.
    """
    env = os.environ
    default = "otlp" if any(env.get(name) for name in _ASKS) else "none"
    names = [name.strip() for name in (env.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true" or "none" in names:
        return None
    given = trace.get_tracer_provider()
    if not isinstance(given, trace.ProxyTracerProvider):
        return Tracing(given)  # by opentelemetry-instrument, or a program that embeds the service
    try:
        return Tracing(_provider(names))
    except (ImportError, LookupError) as error:
        log.warning("no traces: %s; pip install loss-scoring[otel]", error)
        return None


def _provider(names: Sequence[str]) -> Any:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra, and slow
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    named = bool(os.environ.get("OTEL_SERVICE_NAME"))
    resource = Resource.create({} if named else {"service.name": "loss-scoring"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)()))
    return provider


def _exporter(name: str) -> Any:
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
        )
        name = _OTLP.get(protocol, protocol)
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found:
        raise LookupError(f"there is no exporter {name!r}")
    return found[0].load()
