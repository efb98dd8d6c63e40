"""uvicorn's HTTP protocol with deadlines and bounds, which uvicorn lacks.

A connection is new or idle, or owes a head (request line and headers), or owes a body:

    new, idle -> head      at the first byte
    head      -> body      when the headers are complete
    body      -> idle      when the message is complete
    any       -> refused   over a bound or malformed: what still arrives is thrown away

What arrives behind a request is held unparsed until that request is answered, and reading pauses
when it is much. So answers come in order, a fault is answered in its turn, uvicorn's own pipeline,
which has no bound, stays empty, and the request that is served is the one that a disconnect ends.

There is no timer a request. Every connection looks at itself once in a tick, a quarter of its
shortest deadline, and compares its state with the clock; a request only moves the state. A
deadline is thus kept up to a tick late.

What each deadline does:

- No first byte of a request within ``keep_alive_s``: closed. (uvicorn does that after a request,
  but not on a new connection, nor where the end of a body came after the answer.)
- No complete head within ``header_timeout_s`` of its first byte: 408.
- A body that the application waits for: woken with an empty chunk, so that ``service.limits.body``,
  which knows how much is missing, can look at the clock; it has no timer either.
- A body that nobody reads, since the answer is out: aborted after ``body_timeout_s``.
- An answer that the client does not read (the socket's buffers are full and stay so), or a closed
  connection that cannot be flushed: aborted after ``write_timeout_s``.

The end of what a client sends may mean that it went away or that it only reads from now on; TCP
does not tell. Who waits for one answer is taken to be gone, so that what nobody waits for is not
computed. Who has pipelined requests gets the answers of all that are whole; a reset ends them.
"""

import asyncio
import logging
import secrets
from typing import Any, ClassVar, Literal

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from loss_scoring.service.api.cors import Cors
from loss_scoring.service.api.problems import problem_of
from loss_scoring.service.errors import HeadTooLargeError, LateError, MalformedError, ServiceError
from loss_scoring.service.server.framing import Framing
from loss_scoring.service.server.head import HeadHolder
from loss_scoring.service.server.intake import Intake
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_LINGER_S = 2.0
"""Closing with unread bytes resets the connection, and the client may lose the answer."""


def bounded(settings: Settings, metrics: Metrics) -> type[HttpToolsProtocol]:
    """Return the protocol for ``uvicorn.Config(http=...)`` with the limits of the settings."""
    shared = {"settings": settings, "metrics": metrics, "cors": Cors.of(settings)}
    return type("Bounded", (BoundedProtocol,), shared)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Everything a request passes through here counts in its latency."""

    settings: ClassVar[Settings]
    metrics: ClassVar[Metrics]
    cors: ClassVar[Cors | None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limits = self.settings
        self._max_head = limits.max_header_bytes
        deadlines = (
            limits.keep_alive_s,
            limits.header_timeout_s,
            limits.body_timeout_s,
            limits.write_timeout_s,
        )
        self._tick = min(1.0, min(deadlines) / 4)
        self._state: Literal["new", "idle", "head", "body", "refused"] = "new"
        self._since = 0.0
        self._unread_since: float | None = None
        self._noticed: tuple[RequestResponseCycle, str] | None = None
        self._fault: ServiceError | None = None
        self._framing = Framing()
        self._held = bytearray()
        self._pipelines = self._ended = False
        self._intake: Intake
        # Bytes since the head began or, after it, since the last byte of the body: whatever the
        # parser may be keeping.
        self._kept = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start looking at the clock."""
        super().connection_made(transport)
        self.metrics.opened()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self._tick, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking at the clock."""
        self._timer.cancel()
        self.metrics.closed()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse up to the end of a request that is to be answered; hold what is behind it."""
        parsed = 0 if self._held else self._parse(data)
        if parsed < len(data) and self._state != "refused":
            self._held += data[parsed:]
            self._pipelines = True
            if len(self._held) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()

    def _parse(self, arrived: bytes | bytearray) -> int:
        """Parse and count, and refuse what is over the bound; return how far it got."""
        at, size = 0, len(arrived)
        while at < size and self._state != "refused":
            if self._state in ("idle", "new"):
                if self._is_serving():
                    break
                self._state, self._since, self._kept = "head", self.loop.time(), 0
            end = self._framing.end(arrived, at)
            self._kept += end - at
            super().data_received(arrived[at:end])  # type: ignore[arg-type]
            # Trailers and chunk extensions come after the head, and are bounded alike.
            if self._kept > self._max_head and self._state in ("head", "body"):
                self._refuse(self._too_large())
            at = end
        return at

    def _is_serving(self) -> bool:
        """Tell whether a whole request waits for its answer."""
        return self._state == "idle" and self.cycle is not None and not self.cycle.response_complete

    def on_headers_complete(self) -> None:
        """Let the request pass, unless its head is too large."""
        if self._kept > self._max_head:
            self._fault = self._too_large()
            raise self._fault  # uvicorn calls send_400_response
        if self.parser.get_http_version() not in {"1.1", "1.0"}:
            self._fault = MalformedError("only HTTP/1.0 and HTTP/1.1 are spoken here")
            raise self._fault
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._fault = MalformedError("CONNECT is a request to a proxy, which this is not")
                raise self._fault
            return  # the parser stops behind the head, and `_unsupported_upgrade_warning` is called
        self._kept = 0
        self._state = "body"
        self._framing.begin_body(self.headers)
        super().on_headers_complete()
        # Its task has not begun.
        self._intake = Intake(self.cycle, self.flow)
        self.cycle.receive = self._intake.receive  # type: ignore[method-assign]
        if self.scope["method"] == "POST":  # whose answer always has a body, if an empty one
            holder: Any = HeadHolder(self.transport)
            self.cycle.transport = holder

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore that another protocol is asked for (RFC 9110, 7.8): parse the head without it.

        The parser would take what follows for that protocol. Java's HTTP client asks for HTTP/2
        with every request, and so does ``curl --http2``.
        """
        start = b"%b %b HTTP/%b\r\n" % (
            *(self.parser.get_method(), self.url),
            self.parser.get_http_version().encode(),
        )
        lines = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        super().data_received(b"".join([start, *lines, b"\r\n"]))

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._kept = 0
        if not self.cycle.response_complete:
            self._intake.add(body)

    def on_message_complete(self) -> None:
        """Pass on the end of the body."""
        if self._state == "head":  # its parser has stopped
            return
        self._state = "idle"
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the next request, or end the connection if there will be none."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._held:
            del self._held[: self._parse(self._held)]
            if len(self._held) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        if self._ended and not self._is_serving():
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Tell whether to go on though nothing more will come."""
        self._ended = self._pipelines and self._is_serving()
        return self._ended

    def pause_writing(self) -> None:
        """Note since when the client does not read."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it does."""
        self._unread_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that does not parse."""
        self._refuse(self._fault or MalformedError(msg))

    def _too_large(self) -> ServiceError:
        return HeadTooLargeError(
            f"request line and headers are over the {self._max_head} bytes that this server takes"
        )

    def _look(self) -> None:
        """Compare the state with the clock."""
        self._timer = self.loop.call_later(self._tick, self._look)
        now = self.loop.time()
        waited = now - self._since
        if self._unread_since is None and self.transport.is_closing():
            self._unread_since = now
        if self._unread_since is not None:
            if now - self._unread_since > self.settings.write_timeout_s:
                log.info("a client did not read its answer in time")
                self._cut_off("slow-reader")
        elif self._state == "refused":
            if waited > _LINGER_S:
                self._cut_off("lingering")
        elif self.cycle is None or self.cycle.response_complete:
            self._look_for_a_request(now, waited)
        elif self._state == "body":
            self.cycle.message_event.set()

    def _look_for_a_request(self, now: float, waited: float) -> None:
        """Compare with the clock while nothing is left to be answered."""
        limits = self.settings
        if self._state == "head":
            if waited > limits.header_timeout_s:
                self._refuse(LateError(f"no complete headers in {limits.header_timeout_s:g} s"))
        elif self._state != "new" and self._noticed != (self.cycle, self._state):
            self._noticed, self._since = (self.cycle, self._state), now
        elif self._state == "body":
            if waited > limits.body_timeout_s:
                self._cut_off("slow-body")
        elif waited > limits.keep_alive_s:
            self.metrics.cut_off("idle")
            self.transport.close()

    def _cut_off(self, reason: str) -> None:
        self.metrics.cut_off(reason)
        self.transport.abort()

    def _refuse(self, error: ServiceError) -> None:
        """Answer outside any request, and close once the client has read it."""
        cycle = self.cycle
        self._state, self._since = "refused", self.loop.time()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:  # half an answer may be out
                self._cut_off("half-answered")
                return
        answer = problem_of(error, request_id := secrets.token_hex(16))
        answer.headers.update({"x-request-id": request_id, "connection": "close"})
        self.metrics.refused(answer.status_code, error.reason)
        fields = {"request_id": request_id, "status": answer.status_code, "reason": error.reason}
        log.info("refused with %d: %s", answer.status_code, error, extra={"fields": fields})
        headers = [*self.server_state.default_headers, *answer.raw_headers]
        if self.cors is not None:
            headers += self.cors.headers(dict(self.headers or ()))
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(
            b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)])
        )
        self.transport.write_eof()
