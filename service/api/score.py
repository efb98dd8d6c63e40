"""POST /score: negotiate, receive, decode, score, encode, send.

A plain ASGI endpoint: a framework's model would make a Python object of every number.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from loss_scoring.service.api.context import CONTEXT, Context
from loss_scoring.service.api.negotiation import FORMATS, negotiate, wants_zstd
from loss_scoring.service.api.problems import problem_of
from loss_scoring.service.api.start import Start
from loss_scoring.service.codecs.codec import (
    INLINE_BYTES,
    Codec,
    Formats,
    encode,
    encode_compressed,
    is_short,
)
from loss_scoring.service.codecs.request import Headers
from loss_scoring.service.engine import Answer, ScoringEngine, Slice
from loss_scoring.service.errors import (
    FieldError,
    InvalidError,
    ServiceError,
    forget_frames,
    refusal_of,
)
from loss_scoring.service.limits.body import Deadline, Pace, receive_body, whole_number
from loss_scoring.service.limits.budget import MemoryBudget, Reservation
from loss_scoring.service.limits.threads import Threads
from loss_scoring.service.settings import Settings
from loss_scoring.service.telemetry.metrics import ScoredCounts

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_VARY = (b"vary", b"Accept, Accept-Encoding")
_HEADERS = {
    name: [_VARY, (b"content-type", media_type.encode())] for name, media_type in FORMATS.items()
}
_ZSTD = [(b"content-encoding", b"zstd")]
_TIMEOUT_MS_BELOW = 10**9
_WRITE_BYTES = 1 << 19
"""One write holds the event loop for as long as it takes to copy."""


class ScoreEndpoint:
    """The ASGI application behind ``POST /score``."""

    def __init__(self, engine: ScoringEngine, settings: Settings, start: Start) -> None:
        self._engine = engine
        self._start = start
        self._settings = settings
        self._codec = Codec(
            settings.max_body_bytes,
            settings.max_json_bytes,
            settings.max_elements,
            settings.batch_elements,
        )
        self._pace = Pace(settings.body_timeout_s, settings.min_body_bytes_per_s)
        self._open = 0
        self._threads = Threads()
        self.memory = MemoryBudget(settings.max_open_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.serve(scope, receive, send, _formats)

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        formats_of: Callable[[Mapping[bytes, bytes]], Formats],
    ) -> None:
        """Answer one request, whose formats follow from its headers."""
        context: Context = scope[CONTEXT]
        context.route = "/score"
        with Reservation(self.memory, context.client) as reservation:
            self._open += 1
            try:
                headers, parts = await self._answer(
                    scope, receive, context, reservation, formats_of
                )
            except Exception as error:
                refusal = refusal_of(error)
                if refusal is None:
                    raise
                if refusal is not error:
                    log.warning("a request is refused: %s", error)
                forget_frames(error)
                context.reason = refusal.reason
                answer = problem_of(refusal, context.request_id, scope)(scope, receive, send)
            else:
                answer = _send(send, headers, parts)
            finally:
                self._open -= 1
            await answer

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        context: Context,
        reservation: Reservation,
        formats_of: Callable[[Mapping[bytes, bytes]], Formats],
    ) -> tuple[Headers, list[memoryview]]:
        """Return the headers and the parts of the answer.

        A common request waits for nothing: its body has arrived, and it is decoded, scored and
        encoded inline. Whatever may take longer is awaited until the deadline.
        """
        headers = context.headers
        timeout = headers.get(b"x-request-timeout-ms")
        timeout_ms = self._settings.default_timeout_ms if timeout is None else _timeout_ms(timeout)
        deadline = Deadline(min(timeout_ms, self._settings.max_timeout_ms) / 1e3)
        if not self._start.done:
            await self._start.wait(deadline.at)
        formats = formats_of(headers)
        query: bytes = scope["query_string"]
        context.format, reservation.kind = formats.request, _kind(formats, query)
        limit, codec = self._codec.body_limit(formats), self._codec
        body = await receive_body(
            scope, headers, receive, limit, self._pace, deadline, reservation.receive
        )
        started = time.perf_counter()
        sent = body, formats, query, reservation
        try:
            request = codec.decode_common(*sent)
            if request is None:
                request = await self._in_thread(reservation, deadline, codec.decode, *sent)
        finally:  # a refusal took its time as well
            context.stages["decode"] = time.perf_counter() - started
        whole = Slice(*request.columns)
        answer = self._engine.score_inline(whole, idle=self._open == 1)
        if answer is None:
            scoring = self._score(whole, context.client, receive, deadline.at)
            answer = await deadline.wait_for(scoring)
        context.stages["queue"], context.stages["compute"] = answer.queue_s, answer.compute_s
        losses = tuple([spec.name for spec in request.options.losses])
        masked = answer.scores.masked_elements()
        series = request.prediction
        context.scored = ScoredCounts(losses, len(series), series.elements, masked)
        started = time.perf_counter()
        scored, is_zstd = (request, answer.scores, formats.answer), False
        if is_short(*scored):
            parts = encode(*scored)
        elif formats.call is None and wants_zstd(headers.get(b"accept-encoding", b"")):
            rest = *scored, reservation, self._settings.batch_elements
            parts, is_zstd = await self._in_thread(reservation, deadline, encode_compressed, *rest)
        else:
            parts = await self._in_thread(reservation, deadline, encode, *scored, reservation)
        context.stages["encode"] = time.perf_counter() - started
        answer_headers = request.answer_headers or _HEADERS[formats.answer]
        return [*answer_headers, *(_ZSTD if is_zstd else ())], parts

    async def _in_thread(
        self,
        reservation: Reservation,
        deadline: Deadline,
        work: Callable[..., _T],
        *arguments: object,
    ) -> _T:
        deadline.check()  # what a thread has begun keeps its memory until it is done
        return await deadline.wait_for(self._threads.run(reservation, work, *arguments))

    def refusal(self, context: Context, query: bytes) -> ServiceError | None:
        """Return what a request is refused with, by its head alone, if there is no memory for it.

        Other faults of it are left to be found when it is served.
        """
        headers = context.headers
        length = whole_number(headers.get(b"content-length", b""))
        try:
            formats = _formats(headers)
        except ServiceError:
            return None
        if length is None or length > self._codec.body_limit(formats):
            return None
        context.format = formats.request
        return self.memory.refusal(context.client, _kind(formats, query), length)

    async def _score(self, whole: Slice, client: str, receive: Receive, deadline: float) -> Answer:
        """Await the answer; withdraw the request if the client goes away first."""
        future = self._engine.submit(whole, client=client, deadline=deadline)
        if future.done():  # no series
            return future.result()
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise ClientDisconnect
            return future.result()
        finally:
            future.cancel()
            gone.cancel()


def _formats(headers: Mapping[bytes, bytes]) -> Formats:
    return negotiate(
        headers.get(b"content-type", b""),
        headers.get(b"content-encoding", b""),
        headers.get(b"accept", b""),
    )


def _kind(formats: Formats, query: bytes) -> str:
    """Return what requests that usually need as much memory as each other have in common."""
    is_long = formats.request == "arrow" and b"group_" in query
    return "long" if is_long else formats.request


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _timeout_ms(given: bytes) -> int:
    number = whole_number(given)
    if not number or number >= _TIMEOUT_MS_BELOW:
        fault = FieldError("X-Request-Timeout-Ms", "must be a whole number of milliseconds, over 0")
        raise InvalidError(f"the header {fault.pointer} {fault.detail}", (fault,))
    return number


async def _send(send: Send, headers: Headers, parts: Sequence[memoryview]) -> None:
    headers.append((b"content-length", b"%d" % sum(map(len, parts))))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if len(parts) == 1 and len(parts[0]) <= INLINE_BYTES:
        await send({"type": "http.response.body", "body": parts[0]})
        return
    for part in parts:
        for start in range(0, len(part), _WRITE_BYTES):
            body = part[start : start + _WRITE_BYTES]
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(0)  # `send` does not wait for a client that keeps up
    # Sent when the part before it has left, so that the request, and the memory it reserved, does
    # not end before its answer does.
    await send({"type": "http.response.body", "body": b""})
