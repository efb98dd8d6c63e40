"""What every answer carries: a request id, the time of each stage, and never a stack trace."""

import asyncio
import contextvars
import itertools
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry.trace import Span
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loss_scoring.service.api.auth import Keys
from loss_scoring.service.api.cors import Cors
from loss_scoring.service.api.problems import problem, problem_of
from loss_scoring.service.errors import (
    OverloadedError,
    ServiceError,
    UnauthorizedError,
    UnknownKeyError,
    refusal_of,
)
from loss_scoring.service.limits.budget import MemoryBudget
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry import REQUEST
from loss_scoring.service.telemetry.metrics import Metrics, RequestOutcome, ScoredCounts
from loss_scoring.service.telemetry.traces import Tracing

log = logging.getLogger(__name__)
_access = logging.getLogger("service.access")

_VALID_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
NO_ANSWER = 499
"""The status of a request whose client had gone, for metrics and logs."""
SCORE_PATHS = frozenset({"/score", "/v1/score"})
"""What is served at both is the same, and is ``/score`` in metrics and spans."""
CONTEXT = "loss_scoring.context"
"""Where a scope has its ``Context``."""


@dataclass(slots=True)
class Context:
    """What the server knows of one request.

    Attributes:
        request_id: The client's ``X-Request-Id`` if it is valid, else a new one.
        headers: Those of the request, in lower case; the values of a repeated one joined by
            commas (RFC 9110, 5.3).
        client: By whom shares of the server are counted: the holder of its key or, where none is
            needed, the address it comes from.
        stages: Seconds by stage, in the order they happened.
        format: ``json``, ``arrow`` or ``tensors`` once known, for the metrics.
        status: Of the answer, once its head was sent.
        route: The route's path; a client's path would be unbounded.
        reason: Why it was refused.
        scored: What was scored.
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
    scored: ScoredCounts | None = None
    span: Span | None = None


class Admission(Protocol):
    """Decides at the head of a request whether there is memory for it."""

    memory: MemoryBudget

    def refusal(self, context: Context, query: bytes) -> ServiceError | None:
        """Return what a request is to be refused with, if it is."""


class ContextMiddleware:
    """Gives every request a context and every answer its headers; the last guard for errors."""

    def __init__(  # noqa: PLR0913, PLR0917 - where the parts of a request meet
        self,
        app: ASGIApp,
        metrics: Metrics,
        settings: Settings,
        keys: Keys | None = None,
        tracing: Tracing | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._app = app
        self._admission = admission
        self._metrics = metrics
        self._access_log = settings.access_log
        self._cors = Cors.of(settings)
        self._keys = keys
        self._tracing = tracing
        self._ids = itertools.count()
        self._prefix = secrets.token_hex(10)  # random once: a system call costs too much

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = scope[CONTEXT] = scope.get(CONTEXT) or self._context(scope)
        self._begin(context, scope)

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(context)]
            return send(message)

        try:
            refusal = self._keys and self._unauthorized(self._keys, context, scope)
            await (refusal or self._app)(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.info("client gone: %s", scope["path"])
        except asyncio.CancelledError:  # the server stops and has waited long enough
            if context.status != NO_ANSWER:
                raise  # half an answer is out: only closing the connection is honest
            # Not raised again: the task ends here, and the server would log a stack trace.
            await _cut_off(context, scope)(scope, receive, send_with_headers)
        except Exception as error:
            answer = _failure(context, error, scope)
            if context.status != NO_ANSWER:
                raise  # half an answer is out: only closing the connection is honest
            await answer(scope, receive, send_with_headers)
        finally:
            self._end(context, scope)

    @property
    def crowded(self) -> bool:
        """Whether it is worth asking for a ``refusal``."""
        return self._admission is not None and self._admission.memory.scarce

    def refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a ``POST /score`` for which there is no memory, None if there is.

        It is asked at the head of a request, before anything else is made for it: what a refusal
        costs decides how much is served under overload. A request without a valid key is left to
        be refused for that.
        """
        context = scope[CONTEXT] = self._context(scope)
        if self._admission is None or (
            self._keys and self._unauthorized(self._keys, context, scope)
        ):
            return None
        error = self._admission.refusal(context, scope["query_string"])
        if error is None:
            return None
        context.reason, context.route, context.status = error.reason, "/score", error.status
        answer = problem_of(error, context.request_id, scope)
        answer.raw_headers += self._headers(context)
        # What is set for this request must not stay set for the connection.
        contextvars.copy_context().run(self._record, context, scope)
        return answer

    def _record(self, context: Context, scope: Scope) -> None:
        self._begin(context, scope)
        self._end(context, scope)

    def _context(self, scope: Scope) -> Context:
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            headers = _joined(scope["headers"])
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        if not _VALID_ID.fullmatch(request_id):
            request_id = f"{self._prefix}{next(self._ids):012x}"
        peer = scope.get("client")
        return Context(request_id, headers, peer[0] if peer else "")

    def _begin(self, context: Context, scope: Scope) -> None:
        """Set what logs and spans of the request carry."""
        REQUEST.set({"request_id": context.request_id})
        if self._tracing is not None:
            request = scope["method"], scope["path"]
            context.span = self._tracing.begin(*request, context.headers, context.client)

    def _unauthorized(self, keys: Keys, context: Context, scope: Scope) -> Response | None:
        """Return the refusal of a request without a valid key, before its body is read.

        OPTIONS needs no key: browsers send none when they ask whether a page may call.
        """
        if scope["path"] in keys.open_paths or scope["method"] == "OPTIONS":
            return None
        authorization = context.headers.get(b"authorization", b"")
        holder = keys.holder(authorization)
        if holder is not None:
            context.client = holder  # behind a proxy all come from one address
            return None
        kind = UnknownKeyError if authorization else UnauthorizedError
        error = kind("send Authorization: Bearer and a key of this server")
        context.reason = error.reason
        return problem_of(error, context.request_id, scope)

    def _headers(self, context: Context) -> list[tuple[bytes, bytes]]:
        """Return what each answer carries."""
        stages = "".join([f"{name};dur={1e3 * s:.3f}, " for name, s in context.stages.items()])
        total = f"total;dur={1e3 * (time.perf_counter() - context.started):.3f}"
        headers = [
            (b"x-request-id", context.request_id.encode()),
            (b"server-timing", (stages + total).encode()),
        ]
        if self._cors is not None:
            headers += self._cors.headers(context.headers)
        if context.status >= 400 and b"expect" in context.headers:
            # The body that waits for a go-ahead may still come, or not.
            headers.append((b"connection", b"close"))
        return headers

    def _end(self, context: Context, scope: Scope) -> None:
        route = getattr(scope.get("route"), "path", context.route)  # FastAPI's own routes
        seconds = time.perf_counter() - context.started
        outcome = RequestOutcome(
            route,
            context.format,
            context.status,
            seconds,
            context.stages,
            context.reason,
            context.scored,
        )
        self._metrics.observe(outcome)
        if self._tracing is not None and context.span is not None:
            self._tracing.end(context.span, outcome, context.request_id)
        if self._access_log:
            _log_access(scope, context, seconds)


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined


def _log_access(scope: Scope, context: Context, seconds: float) -> None:
    """Log a request, without its query and its headers, which may be secret."""
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": context.status,
        "seconds": round(seconds, 6),
        "format": context.format,
        "client": context.client,
    }
    if context.reason is not None:
        fields["reason"] = context.reason
    line = "%s %s %d", fields["method"], fields["path"], context.status
    _access.info(*line, extra={"fields": fields})


def _failure(context: Context, error: Exception, scope: Scope) -> Response:
    """Log what nobody caught; return the answer to its request."""
    refusal = refusal_of(error)
    if refusal is None:
        log.error("unexpected error in request %s", context.request_id, exc_info=error)
        return problem(500, context.request_id, scope, retryable=True)
    log.warning("request %s is refused: %s", context.request_id, error)
    context.reason = refusal.reason
    return problem_of(refusal, context.request_id, scope)


def _cut_off(context: Context, scope: Scope) -> Response:
    """Return the answer to a request for which no time is left."""
    error = OverloadedError("the server stopped before the answer was ready", 5, reason="not-ready")
    context.reason = error.reason
    answer = problem_of(error, context.request_id, scope)
    answer.headers["connection"] = "close"  # more of the body may come
    return answer
