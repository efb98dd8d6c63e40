"""What every answer carries: a request id, the time of each stage, and never a stack trace."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.trace import Span
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loss_scoring.service.api.cors import Cors
from loss_scoring.service.api.problems import problem, problem_of
from loss_scoring.service.errors import OverloadedError
from loss_scoring.service.telemetry.current import REQUEST
from loss_scoring.service.telemetry.metrics import Metrics
from loss_scoring.service.telemetry.requests import Answered, Scored
from loss_scoring.service.telemetry.traces import Outcome, Tracing

log = logging.getLogger(__name__)
_access = logging.getLogger("service.access")

_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
NO_ANSWER = 499
"""The status of a request whose client had gone, for metrics and logs."""
_KEY = "loss_scoring.context"


@dataclass(slots=True)
class Context:
    """One request as the server sees it.

    Attributes:
        request_id: The client's ``X-Request-Id`` when it is sane, else made here.
        headers: Those of the request, in lower case; the values of a repeated one joined by
            commas (RFC 9110, 5.3).
        client: Whom its share of the server is counted for: the holder of its key or, where none
            is needed, the address it comes from.
        stages: Seconds by stage, in the order they happened.
        format: ``json`` or ``arrow`` once known, for the metrics.
        status: Of the answer, once its head was sent.
        route: The route's path, for the metrics; a client's path would be unbounded.
        reason: Why it was refused, for the metrics.
        scored: What it was scored for, for the metrics.
        span: Its span, if it is traced.
    """

    request_id: str
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    client: str = ""
    started: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    format: str = "none"
    status: int = NO_ANSWER
    route: str = "none"
    reason: str | None = None
    scored: Scored | None = None
    span: Span | None = None

    def server_timing(self) -> str:
        """Return the ``Server-Timing`` header: milliseconds by stage, and in total."""
        stages = {**self.stages, "total": time.perf_counter() - self.started}
        return ", ".join([f"{name};dur={1e3 * s:.3f}" for name, s in stages.items()])


def context_of(scope: Scope) -> Context:
    """Return the context that the middleware laid into a scope."""
    context: Context = scope[_KEY]
    return context


class ContextMiddleware:
    """Gives every request a context and every answer its headers; the last guard for errors."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        tracing: Tracing | None = None,
        *,
        access_log: bool = False,
        cors: Cors | None = None,
    ) -> None:
        self._app = app
        self._cors = cors
        self._tracing = tracing
        self._access_log = access_log
        self._metrics = metrics
        self._ids = itertools.count()
        self._prefix = secrets.token_hex(10)  # random once: a system call a request is dear

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = self._begin(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers(context, message)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.info("client gone: %s", scope["path"])
        except asyncio.CancelledError:  # the server stops and has waited long enough
            if context.status != NO_ANSWER:
                raise  # half an answer is out: only closing the connection is honest
            # Not raised again: the task ends here, and the server would log a stack trace.
            await _cut_off(context)(scope, receive, send_with_headers)
        except Exception:
            log.exception("unexpected error in request %s", context.request_id)
            if context.status != NO_ANSWER:
                raise  # half an answer is out: only closing the connection is honest
            answer = problem(500, context.request_id, retryable=True)
            await answer(scope, receive, send_with_headers)
        finally:
            self._end(context, scope)

    def _begin(self, scope: Scope) -> Context:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b", " + value if name in headers else value
        given = headers.get(b"x-request-id")
        if given is not None and _SANE_ID.fullmatch(given):
            request_id = given.decode("ascii")
        else:
            request_id = f"{self._prefix}{next(self._ids):012x}"
        peer = scope.get("client")
        context = Context(request_id, headers, peer[0] if peer else "")
        scope[_KEY] = context
        REQUEST.set({"request_id": request_id})
        if self._tracing is not None:
            asked = scope["method"], scope["path"]
            context.span = self._tracing.begin(*asked, headers, context.client)
        return context

    def _headers(self, context: Context, message: Message) -> list[tuple[bytes, bytes]]:
        """Return what each answer carries, and note its status."""
        context.status = message["status"]
        headers = [
            (b"x-request-id", context.request_id.encode()),
            (b"server-timing", context.server_timing().encode()),
        ]
        if self._cors is not None:
            headers += self._cors.headers(context.headers)
        if context.status >= 400 and b"expect" in context.headers:
            # Whether the body that waits for a go-ahead still comes, nobody knows.
            headers.append((b"connection", b"close"))
        return headers

    def _end(self, context: Context, scope: Scope) -> None:
        route = getattr(scope.get("route"), "path", context.route)  # FastAPI's own routes
        seconds = time.perf_counter() - context.started
        status, stages, reason = context.status, context.stages, context.reason
        self._metrics.observe(
            Answered(route, context.format, status, seconds, stages, reason, context.scored)
        )
        if self._tracing is not None and context.span is not None:
            told = {
                "loss_scoring.request_id": context.request_id,
                "loss_scoring.format": context.format,
            }
            if reason is not None:
                told["error.type"] = reason
            self._tracing.end(context.span, Outcome(route, status, stages, told))
        if self._access_log:
            _tell(scope, context, status, seconds)


def _tell(scope: Scope, context: Context, status: int, seconds: float) -> None:
    """Leave a line about a request: neither its query nor its headers, which may be secret."""
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 6),
        "format": context.format,
        "client": context.client,
    }
    if context.reason is not None:
        fields["reason"] = context.reason
    _access.info("%s %s %d", fields["method"], fields["path"], status, extra={"fields": fields})


def _cut_off(context: Context) -> Response:
    """Answer a request for which there is no time left."""
    error = OverloadedError("the server stopped before the answer was there", 5, reason="not-ready")
    context.reason = error.reason
    answer = problem_of(error, context.request_id)
    answer.headers["connection"] = "close"  # more of the body may come
    return answer
