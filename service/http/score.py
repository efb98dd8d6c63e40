"""POST /score: receive, decode, score, encode.

A plain ASGI endpoint: the body never passes through a framework's model, which would make a
Python object of every number.
"""

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from core import Scores
from service.codecs import arrow, json, long
from service.codecs.compression import decompress
from service.codecs.options import columns_from_query, options_from_query
from service.codecs.request import ScoreRequest
from service.engine import Answer, Scorer
from service.errors import DeadlineError, Faults, FieldError, InvalidError, ServiceError
from service.http.body import Pace, receive_body
from service.http.context import Context, context_of
from service.http.negotiation import FORMATS, Formats, negotiate
from service.http.problems import problem_of
from service.http.sizes import added_bytes, encoded_bytes
from service.http.threads import Threads
from service.limits.budget import MemoryBudget, Reservation
from service.settings import Settings
from service.telemetry.requests import Scored

_TYPES = {name: media_type.encode() for name, media_type in FORMATS.items()}
_INLINE_BYTES = 1 << 16
"""JSON below this is read and written on the event loop; a hand-off to a thread costs more."""
_ARROW_IS_CHEAPER = 32
"""Times as cheap to read and write as JSON of its size."""
_SENT_AT_ONCE = 1 << 19
"""One write holds the event loop for as long as it takes to copy."""


class ScoreEndpoint:
    """The ASGI application behind ``POST /score``."""

    def __init__(self, engine: Scorer, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._pace = Pace(settings.body_timeout_s, settings.min_body_bytes_per_s)
        self._open = 0
        self._threads = Threads()
        self.memory = MemoryBudget(settings.max_open_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        context = context_of(scope)
        context.route = "/score"
        with self.memory.reservation(context.client) as reservation:
            self._open += 1
            try:
                format_, chunks = await self._in_time(scope, receive, context, reservation)
            except ServiceError as error:
                context.reason = error.reason
                answer = problem_of(error, context.request_id)(scope, receive, send)
            else:
                answer = _send(send, format_, chunks)
            finally:
                self._open -= 1
            await answer

    async def _in_time(
        self, scope: Scope, receive: Receive, context: Context, reservation: Reservation
    ) -> tuple[str, list[memoryview]]:
        """Return the format and the parts of the answer.

        Raises:
            DeadlineError: If they are not there in time.
        """
        seconds = _timeout_ms(context, self._settings) / 1e3
        try:
            async with asyncio.timeout(seconds) as timeout:
                return await self._answer(
                    scope, receive, context, reservation, time.monotonic() + seconds
                )
        except TimeoutError:
            if not timeout.expired():
                raise
            raise DeadlineError(f"the answer was not there after {seconds:g} s") from None

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        context: Context,
        reservation: Reservation,
        deadline: float,
    ) -> tuple[str, list[memoryview]]:
        formats = negotiate(context.headers)
        context.format = reservation.kind = formats.request
        query = parse_qsl(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True)
        if formats.request == "arrow" and any(name == "group_columns" for name, _ in query):
            reservation.kind = "long"
        limit = self._body_limit(formats)
        body = await receive_body(context.headers, receive, limit, self._pace, reservation.receive)
        started = time.perf_counter()
        try:
            request = await self._threads.run(
                *(reservation, self._decode, body, formats, query, reservation),
                inline=formats.coding == "identity" and _is_quick(body, formats),
            )
        finally:  # a refusal took its time as well
            context.stages["decode"] = time.perf_counter() - started
        answer = self._engine.score_inline(
            request.prediction, request.target, request.options, idle=self._open == 1
        )
        if answer is None:
            answer = await self._score(request, context.client, receive, deadline)
        context.stages["queue"], context.stages["compute"] = answer.queue_s, answer.compute_s
        losses = tuple([spec.name for spec in request.options.losses])
        masked = answer.scores.masked_elements()
        context.scored = Scored(losses, len(request), request.elements, masked)
        started = time.perf_counter()
        chunks = await self._threads.run(
            *(reservation, _encode, request, answer.scores, formats),
            inline=_is_short(request, formats),
        )
        context.stages["encode"] = time.perf_counter() - started
        return formats.answer, chunks

    def _body_limit(self, formats: Formats) -> int:
        limit = self._settings.max_body_bytes
        return min(self._settings.max_json_bytes, limit) if formats.request == "json" else limit

    def _decode(
        self,
        body: memoryview,
        formats: Formats,
        query: Sequence[tuple[str, str]],
        reservation: Reservation,
    ) -> ScoreRequest:
        """Read a body, and reserve what it takes before it takes it."""
        if formats.coding != "identity":
            body = decompress(body, formats.coding, self._body_limit(formats), reservation.receive)
        if formats.request == "json":
            request = self._decode_json(body, query)
        else:
            request = self._decode_arrow(body, query, reservation)
        encoded = encoded_bytes(request, formats.answer)
        reservation.settle(
            added_bytes(
                request,
                encoded,
                is_json=formats.request == "json",
                answers_json=formats.answer == "json",
                is_cut=request.elements > self._settings.batch_elements,
            )
        )
        return request

    def _decode_json(self, body: memoryview, query: Sequence[tuple[str, str]]) -> ScoreRequest:
        faults = Faults()
        for name, _ in query:
            faults.add(f"?{name}", "the options of a JSON request belong in its body")
        faults.check()
        return json.decode(body, max_elements=self._settings.max_elements)

    def _decode_arrow(
        self, body: memoryview, query: Sequence[tuple[str, str]], reservation: Reservation
    ) -> ScoreRequest:
        settings, faults = self._settings, Faults()
        check = arrow.check_of(body, settings.max_body_bytes)
        reservation.receive(check.finish())
        options = options_from_query(query, faults)
        columns = columns_from_query(query, faults)
        faults.check()
        if columns is None:
            return arrow.decode(
                body,
                options,
                max_bytes=settings.max_body_bytes,
                max_elements=settings.max_elements,
                check=check,
            )
        table = long.decode(body, options, columns, check=check, max_elements=settings.max_elements)
        reservation.reserve(table.key_bytes)
        reservation.reserve(table.needed_bytes())
        return table.request()

    async def _score(
        self, request: ScoreRequest, client: str, receive: Receive, deadline: float
    ) -> Answer:
        """Await the answer; withdraw the request if the client goes away first."""
        future = self._engine.submit(
            request.prediction, request.target, request.options, client=client, deadline=deadline
        )
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


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _parts(chunks: Sequence[memoryview]) -> Sequence[memoryview]:
    """Cut what is too large for one write.

    An empty part ends it: a part is sent when the one before it has left, so that the request, and
    what it holds, does not end before its answer does.
    """
    if len(chunks) == 1 and len(chunks[0]) <= _INLINE_BYTES:
        return chunks
    cut = [
        chunk[start : start + _SENT_AT_ONCE]
        for chunk in chunks
        for start in range(0, len(chunk), _SENT_AT_ONCE)
    ]
    return [*cut, memoryview(b"")]


def _timeout_ms(context: Context, settings: Settings) -> int:
    given = context.headers.get(b"x-request-timeout-ms")
    if given is None:
        return settings.default_timeout_ms
    if not given.isdigit() or not 0 < len(given.lstrip(b"0")) <= 9:
        fault = FieldError("X-Request-Timeout-Ms", "must be a whole number of milliseconds, over 0")
        raise InvalidError(f"the header {fault.pointer} {fault.detail}", (fault,))
    return min(int(given), settings.max_timeout_ms)


async def _send(send: Send, format_: str, chunks: Sequence[memoryview]) -> None:
    headers = [
        (b"content-type", _TYPES[format_]),
        (b"content-length", b"%d" % sum(map(len, chunks))),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    parts = _parts(chunks)
    for i, part in enumerate(parts, start=1):
        await send({"type": "http.response.body", "body": part, "more_body": i < len(parts)})
        if i < len(parts):  # a client that keeps up never makes `send` wait, nor anyone else's turn
            await asyncio.sleep(0)


def _is_quick(body: memoryview, formats: Formats) -> bool:
    """Tell whether reading a body takes less than handing it to a thread, or hardly more."""
    if formats.request == "json":
        return len(body) <= _INLINE_BYTES
    return len(body) <= _ARROW_IS_CHEAPER * _INLINE_BYTES


def _is_short(request: ScoreRequest, formats: Formats) -> bool:
    """Tell whether writing an answer takes less than handing it to a thread, or hardly more."""
    encoded = encoded_bytes(request, formats.answer)
    if formats.answer == "json":
        return encoded <= _INLINE_BYTES
    return encoded <= _ARROW_IS_CHEAPER * _INLINE_BYTES


def _encode(request: ScoreRequest, scores: Scores, formats: Formats) -> list[memoryview]:
    """Write an answer, unless elements are missing that must not be."""
    if formats.request != "json" and arrow.may_be_missing(request, scores):
        arrow.check_missing(request)
    if formats.answer == "json":
        return [memoryview(json.encode(request, scores))]
    return arrow.encode(request, scores)
