"""uvicorn's HTTP protocol with the deadlines and bounds that it lacks.

What a connection waits for is its state; each has a deadline, and what happens when it passes:

    state    until                           deadline          then
    IDLE     the first byte of a request     keep_alive_s      closed
    HEAD     its headers are complete        header_timeout_s  408
    BODY     its body is                     body_timeout_s    aborted
    CLOSING  the client has read a refusal   2 s               aborted
    any      the client reads its answer     write_timeout_s   aborted

While a request waits for its answer, in BODY or IDLE, no deadline but the last one runs: how slow
its body may be is decided by ``service.limits.body``, and how slow its answer by the deadline of
the request. So IDLE counts from the answer, and BODY is left to bodies that nobody reads, as their
requests are answered.

A request arms no timer; it only moves the state. Every connection compares its state with the clock
once in a tick, a quarter of the shortest deadline, so a deadline passes up to a tick late.

One request is served at a time. What arrives behind it waits, unparsed, until it is answered, and
reading pauses when that is much. So answers come in order, a fault is answered in its turn,
uvicorn's own pipeline, which has no bound, stays empty, and the request that is served is the one
that a disconnect ends. The parser takes all that it is given, so ``_RequestEnd`` cuts it first.

Framing, which is all that is not the content of a body, costs a thousand times what content does.
A read of 250 KB may be 40,000 chunks, or 2,000 requests that are refused at their heads. So a turn
of the event loop parses a few KB of it, and at most one request, of each connection.

The end of what a client sends may mean that it went away or that it only reads from now on; TCP
does not tell. A client with one request is taken to be gone, so that its request is not computed
for nobody. One that has pipelined requests gets the answers to all that are whole; a reset ends
them.

This file leans on what uvicorn keeps private: the attributes and callbacks of ``HttpToolsProtocol``
and of its cycle. Tested with uvicorn 0.38 and 0.54, and by ``tests/test_private_names.py`` with the
installed one.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from loss_scoring.service.api.context import SCORE_PATHS, ContextMiddleware
from loss_scoring.service.api.cors import Cors
from loss_scoring.service.api.problems import problem_of
from loss_scoring.service.errors import (
    HeadTooLargeError,
    LateError,
    MalformedError,
    ServiceError,
    UnimplementedError,
)
from loss_scoring.service.limits.body import BUFFERED
from loss_scoring.service.server.head import path_of, read_head
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_SCORE_PATHS = frozenset(path.encode() for path in SCORE_PATHS)
_EMPTY_LINE = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"[A-Za-z]+ \S+ HTTP/1\.[01]\r\n")
_MOST_FIELDS = 256
"""A line may have four bytes, and costs more than any of them."""
_COST_A_TURN = 1 << 11
_COST_OF_PART = 8
"""Both in bytes of framing. 256 parts of four bytes of content take a quarter of a millisecond."""
_LONGEST_PART = 1 << 15
"""Five thousand chunks of one byte, which take half a millisecond."""


class State(Enum):
    """What a connection waits for."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    CLOSING = "closing"


def bounded(
    settings: Settings, metrics: Metrics, context: ContextMiddleware | None = None
) -> type[HttpToolsProtocol]:
    """Return the protocol for ``uvicorn.Config(http=...)`` with the limits of the settings.

    Args:
        settings: Its limits.
        metrics: Where to count.
        context: Refuses requests at their heads while memory is scarce.
    """
    deadlines = {
        State.IDLE: settings.keep_alive_s,
        State.HEAD: settings.header_timeout_s,
        State.BODY: settings.body_timeout_s,
        State.CLOSING: 2.0,
    }
    shared = {
        "deadlines": deadlines,
        "write_timeout_s": settings.write_timeout_s,
        "tick": min(1.0, min(*deadlines.values(), settings.write_timeout_s) / 4),
        "max_head": settings.max_header_bytes,
        "metrics": metrics,
        "cors": Cors.of(settings),
        "context": context,
    }
    return type("Bounded", (BoundedProtocol,), shared)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. All of this counts in the latency of a request."""

    deadlines: ClassVar[Mapping[State, float]]
    write_timeout_s: ClassVar[float]
    tick: ClassVar[float]
    max_head: ClassVar[int]
    metrics: ClassVar[Metrics]
    cors: ClassVar[Cors | None]
    context: ClassVar[ContextMiddleware | None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The parser looks `on_body` up once. A method of ours would cost more than a small chunk.
        self._chunks: list[bytes] = []
        self.on_body = self._chunks.append  # type: ignore[method-assign, assignment]
        super().__init__(*args, **kwargs)
        self._state = State.IDLE
        self._since = 0.0
        self._unread_since: float | None = None
        self._end = _RequestEnd()
        self._backlog = bytearray()
        self._pipelines = self._ended = self._is_scheduled = False
        # Bytes since the head began or, after it, since the last byte of the body: whatever the
        # parser may have buffered.
        self._unparsed = 0
        self._cost = 0  # of what was parsed in this turn

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.metrics.opened()
        self._answers = _AnswerTransport(self, transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self.tick, self._poll)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._backlog.clear()
        self.metrics.closed()
        super().connection_lost(exc)
        # Cycles, in which thousands of header lines would wait for the garbage collector.
        self.parser = self._answers = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse up to the end of a request that is to be answered; buffer what is behind it."""
        parsed = 0 if self._backlog else self._parse(data)
        if parsed < len(data) and self._state is not State.CLOSING:
            self._backlog += memoryview(data)[parsed:]
            self._bound_backlog()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether to go on though nothing more will come."""
        self._ended = self._is_scheduled or (self._pipelines and self._is_serving())
        return self._ended

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    # One request at a time

    def _parse(self, arrived: bytes | bytearray) -> int:
        """Parse and count, and refuse what is over the bound; return how far it got."""
        at, size = 0, len(arrived)
        self._cost = 0
        # What arrives is not copied; the backlog, which could not shrink beside a view of it, is.
        parts = memoryview(arrived) if isinstance(arrived, bytes) else arrived
        while at < size and self._cost < _COST_A_TURN and self._state is not State.CLOSING:
            if self._state is State.IDLE:
                if at or not self._is_answered():
                    break
                self._enter(State.HEAD)
                self._unparsed = 0
            end = self._end.find(arrived, at)
            self._unparsed += end - at
            self._cost += end - at + _COST_OF_PART
            self._feed(parts[at:end])
            # Trailers and chunk extensions come after the head, and are bounded alike.
            if self._unparsed > self.max_head and self._state in (State.HEAD, State.BODY):
                self._refuse(self._too_large())
            at = end
        return at

    def _feed(self, part: bytes | bytearray | memoryview) -> None:
        """Parse, in place of uvicorn's ``data_received``."""
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        except httptools.HttpParserError as error:
            self._refuse(_fault_of(error, part))
        if self._chunks:
            self._pass_on_body()

    def _parse_backlog(self) -> None:
        del self._backlog[: self._parse(self._backlog)]
        self._bound_backlog()
        if self._ended and not (self._is_serving() or self._is_scheduled):
            self.transport.close()

    def _continue(self) -> None:
        self._is_scheduled = False
        if not self.transport.is_closing():
            self._parse_backlog()

    def _bound_backlog(self) -> None:
        """Parse on in the next turn unless a request is served; read on unless much waits already.

        ``flow`` pauses too, but only amid a body.
        """
        if self._state is State.CLOSING:
            self._backlog.clear()
        elif self._backlog:
            self._pipelines |= self._state is State.IDLE
            if not (self._is_scheduled or self._is_serving()):
                self._is_scheduled = True
                self.loop.call_soon(self._continue)
        if len(self._backlog) > HIGH_WATER_LIMIT:
            self.transport.pause_reading()
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def _enter(self, state: State) -> None:
        self._state, self._since = state, self.loop.time()

    def _is_answered(self) -> bool:
        """Return whether no request waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    def _is_serving(self) -> bool:
        """Return whether a whole request waits for its answer."""
        return self._state is State.IDLE and not self._is_answered()

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip()))  # the parser leaves blanks behind it

    def on_headers_complete(self) -> None:
        """Refuse, by raising, what is no request to this server; else begin it."""
        if self._unparsed > self.max_head:
            raise self._too_large()
        if len(self.headers) > _MOST_FIELDS:
            raise HeadTooLargeError(f"this server takes {_MOST_FIELDS} header lines")
        version = self.parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise MalformedError("this server speaks HTTP/1.0 and HTTP/1.1 only")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise MalformedError("CONNECT is a request to a proxy, which this is not")
            return  # the parser stops behind the head; see `_ignore_upgrade`
        if not self.url.startswith(b"/"):
            self.url = path_of(self.url, self.parser.get_method())
        length, self.expect_100_continue = read_head(self.headers, version)
        self._unparsed = self._cost = 0  # a turn has one head, which is bounded by itself
        self._enter(State.BODY)
        self._end.begin_body(length)
        if self.context and self.context.crowded and self._answer_at_head(self.context):
            return
        super().on_headers_complete()
        cycle: Any = self.cycle
        cycle.transport = self._answers

    def _answer_at_head(self, context: ContextMiddleware) -> bool:
        """Refuse a request for which there is no memory; its body, which still comes, is skipped.

        Neither a cycle nor a task is made for it.
        """
        path, _, query = self.url.partition(b"?")
        if path not in _SCORE_PATHS or self.parser.get_method() != b"POST":
            return False
        if self.expect_100_continue or not self.parser.should_keep_alive():
            return False  # the connection is to be closed with care
        scope: Any = self.scope
        scope |= {"method": "POST", "path": path.decode(), "query_string": query}
        answer = context.refusal(scope)
        if answer is not None:
            self.server_state.total_requests += 1
            self._write(answer)
        return answer is not None

    def _ignore_upgrade(self) -> None:
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
        self._feed(b"".join([start, *lines, b"\r\n"]))

    def _pass_on_body(self) -> None:
        """Give the request the chunks that came since the last time."""
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._unparsed = 0
        self._cost -= len(body)
        if self._is_answered():
            return
        cycle: Any = self.cycle
        if not cycle.body:
            cycle.body = body  # uvicorn would copy it into a bytearray, and out of it again
        else:
            if isinstance(cycle.body, bytes):
                cycle.body = bytearray(cycle.body)
            cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._state is State.HEAD:  # its parser has stopped
            return
        if self._chunks:
            self._pass_on_body()
        self._enter(State.IDLE)
        if self._is_answered():
            return
        self.flow.resume_reading()  # what follows is bounded by the backlog
        self.scope[BUFFERED] = True  # type: ignore[literal-required]
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the next request, or end the connection if there will be none.

        In place of uvicorn's, which arms a timer for the connection to stay idle.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since = self.loop.time()
        self.flow.resume_reading()
        if self._backlog or self._ended:
            self._parse_backlog()

    def close_behind_answer(self) -> None:
        """Close the connection; if more of the body may come, once the client has read the answer.

        Closing with unread bytes resets the connection, and the client may lose the answer.
        """
        if self._state is State.IDLE:
            self.transport.close()
            return
        self._enter(State.CLOSING)
        self.flow.resume_reading()
        self.transport.write_eof()

    # Deadlines and refusals

    def _poll(self) -> None:
        """Compare the state with the clock."""
        self._timer = self.loop.call_later(self.tick, self._poll)
        now = self.loop.time()
        if self._unread_since is None and self.transport.is_closing():
            self._unread_since = now
        if self._unread_since is not None:
            if now - self._unread_since > self.write_timeout_s:
                log.info("a client did not read its answer in time")
                self._cut_off("slow-reader")
            return
        deadline, state = self.deadlines[self._state], self._state
        if now - self._since <= deadline:
            return
        if state is State.CLOSING:
            self._cut_off("lingering")
        elif not self._is_answered():
            return
        elif state is State.HEAD:
            self._refuse(LateError(f"no complete headers in {deadline:g} s"))
        elif state is State.BODY:
            self._cut_off("slow-body")
        else:
            self.metrics.cut_off("idle")
            self.transport.close()

    def _cut_off(self, reason: str) -> None:
        self.metrics.cut_off(reason)
        self.transport.abort()

    def _too_large(self) -> ServiceError:
        return HeadTooLargeError(
            f"request line and headers are over the {self.max_head} bytes that this server takes"
        )

    def _refuse(self, error: ServiceError) -> None:
        """Answer outside any request, and close once the client has read it."""
        self._enter(State.CLOSING)
        self.transport.resume_reading()
        if not self._is_answered():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:  # half an answer may be out
                self._cut_off("half-answered")
                return
        answer = problem_of(error, request_id := secrets.token_hex(16))
        answer.headers.update({"x-request-id": request_id, "connection": "close"})
        self.metrics.refused(answer.status_code, error.reason)
        fields = {"request_id": request_id, "status": answer.status_code, "reason": error.reason}
        log.info("refused with %d: %s", answer.status_code, error, extra={"fields": fields})
        if self.cors is not None:
            answer.raw_headers += self.cors.headers(dict(self.headers or ()))
        self._write(answer)
        self.transport.write_eof()

    def _write(self, answer: Response) -> None:
        headers = [*self.server_state.default_headers, *answer.raw_headers]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(
            b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)])
        )


class _AnswerTransport:
    """The transport as answers see it, which uvicorn would close though unread bytes arrive."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, protocol: BoundedProtocol, transport: asyncio.Transport) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = protocol.close_behind_answer


class _RequestEnd:
    """Finds where a request ends in what a client sends, so that nothing behind it is parsed early.

    A request costs a hundred times the bytes it is written in. Here no grammar is repeated: a body
    of known length ends after so many bytes, and heads and chunked bodies end with an empty line,
    as the parser insists (it takes no bare LF). A part that ends with an empty line amid a body is
    only a part.
    """

    __slots__ = ("_before", "_missing")

    def __init__(self) -> None:
        self._missing = 0
        self._before = b""  # the last bytes of an unfinished part: an empty line may be torn

    def begin_body(self, length: int) -> None:
        """Take the length of the body, 0 if only its end tells it."""
        self._missing = length

    def find(self, arrived: bytes | bytearray, start: int) -> int:
        """Return where the part that begins at ``start`` ends; the next call begins there."""
        if self._missing:
            end = min(start + self._missing, len(arrived))
            self._missing -= end - start
            return end
        before, most = self._before, start + _LONGEST_PART
        if before:
            torn = (before + arrived[start : start + 3]).find(_EMPTY_LINE)
            if torn >= 0:
                self._before = b""
                return start + torn + 4 - len(before)
        found = arrived.find(_EMPTY_LINE, start, most)
        if found >= 0:
            self._before = b""
            return found + 4
        end = min(most, len(arrived))
        self._before = (before + arrived[max(start, end - 3) : end])[-3:]
        return end


def _fault_of(
    error: httptools.HttpParserError, part: bytes | bytearray | memoryview
) -> ServiceError:
    """Return what a request is refused with that does not parse."""
    if isinstance(error.__context__, ServiceError):  # raised by a callback
        return error.__context__
    is_method = isinstance(error, httptools.HttpParserInvalidMethodError)
    if is_method and (line := _REQUEST_LINE.match(part)):
        method = line[0].split()[0].decode()
        return UnimplementedError(f"the method {method!r} is not known")
    return MalformedError(str(error))
