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
from service.codecs.compression import Decompression
from service.codecs.ipc import StreamCheck
from service.codecs.long import LongTable
from service.codecs.options import columns_from_query, options_from_query
from service.codecs.request import ScoreRequest
from service.engine import Answer, Scorer
from service.errors import DeadlineError, Faults, FieldError, InvalidError, ServiceError
from service.http.body import Pace, receive_body
from service.http.context import Context, context_of
from service.http.negotiation import FORMATS, negotiate
from service.http.places import Places
from service.http.problems import problem_of
from service.http.room import Hold, Room
from service.http.sizes import added_bytes, encoded_bytes
from service.http.threads import Threads
from service.settings import Settings
from service.telemetry.requests import Scored

_TYPES = {name: media_type.encode() for name, media_type in FORMATS.items()}
_INLINE_BYTES = 1 << 16
"""JSON below this is read and written on the event loop; a hand-off to a thread costs more."""
_ARROW_IS_CHEAPER = 32
"""Times as cheap to write as JSON of its size."""
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
        self._places = Places(settings.max_queued_elements)
        self.room = Room(settings.max_open_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        context = context_of(scope)
        context.route = "/score"
        with self.room.hold(context.client) as hold:
            self._open += 1
            try:
                format_, chunks = await self._in_time(scope, receive, context, hold)
            except ServiceError as error:
                context.reason = error.reason
                answer = problem_of(error, context.request_id)(scope, receive, send)
            else:
                answer = _send(send, format_, chunks)
            finally:
                self._open -= 1
            await answer

    async def _in_time(
        self, scope: Scope, receive: Receive, context: Context, hold: Hold
    ) -> tuple[str, list[memoryview]]:
        """Return the format and the parts of the answer.

        Raises:
            DeadlineError: If they are not there in time.
        """
        seconds = _timeout_ms(context, self._settings) / 1e3
        try:
            async with asyncio.timeout(seconds) as timeout:
                return await self._answer(scope, receive, context, hold, time.monotonic() + seconds)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise DeadlineError(f"the answer was not there after {seconds:g} s") from None

    async def _answer(
        self, scope: Scope, receive: Receive, context: Context, hold: Hold, deadline: float
    ) -> tuple[str, list[memoryview]]:
        formats = negotiate(context.headers)
        is_json = formats.request == "json"
        context.format = hold.kind = formats.request
        query = parse_qsl(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True)
        if not is_json and any(name == "group_columns" for name, _ in query):
            hold.kind = "long"
        settings = self._settings
        limit = settings.max_json_bytes if is_json else settings.max_body_bytes
        limit = min(limit, settings.max_body_bytes)
        body = await receive_body(context.headers, receive, limit, self._pace, hold.receive)
        started = time.perf_counter()
        if formats.coding != "identity":
            body = await self._decompress(body, formats.coding, limit, hold)
        check = None if is_json else arrow.check_of(body, settings.max_body_bytes)
        here = check is None or arrow.is_quick(body, check)
        if hold.kind != "arrow":
            here = here and len(body) <= _INLINE_BYTES
        try:
            if check is not None and not here:
                hold.receive(await self._threads.run(hold, check.finish, here=False))
            request = await self._threads.run(hold, self._decode, body, query, check, here=here)
            if isinstance(request, LongTable):  # whose memory is known only now
                hold.reserve(request.key_bytes)
                hold.reserve(await self._threads.run(hold, request.needed_bytes, here=here))
                here = here and request.elements <= _INLINE_BYTES
                request = await self._threads.run(hold, request.request, here=here)
        finally:  # a refusal took its time as well
            context.stages["decode"] = time.perf_counter() - started
        encoded = encoded_bytes(request, formats.answer)
        hold.settle(
            added_bytes(
                request,
                encoded,
                is_json=is_json,
                answers_json=formats.answer == "json",
                is_cut=request.elements > settings.batch_elements,
            )
        )
        answer = self._engine.score_at_once(
            request.prediction, request.target, request.options, idle=self._open == 1
        )
        if answer is None:
            with self._places.taken(context.client, request.elements):
                answer = await self._score(request, receive, deadline)
        context.stages["queue"], context.stages["compute"] = answer.queue_s, answer.compute_s
        losses = tuple([spec.name for spec in request.options.losses])
        masked = answer.scores.masked_elements()
        context.scored = Scored(losses, len(request), request.elements, masked)
        started = time.perf_counter()
        if not is_json and arrow.may_be_missing(request, answer.scores):
            await self._threads.run(
                hold, arrow.check_missing, request, here=request.elements <= _INLINE_BYTES
            )
        here = encoded <= _INLINE_BYTES * (1 if formats.answer == "json" else _ARROW_IS_CHEAPER)
        chunks = await self._threads.run(
            *(hold, _encode, request, answer.scores, formats.answer), here=here
        )
        context.stages["encode"] = time.perf_counter() - started
        return formats.answer, chunks

    async def _decompress(
        self, body: memoryview, coding: str, limit: int, hold: Hold
    ) -> memoryview:
        """Return what a body says, its memory taken step by step: few bytes may become many."""
        stream = Decompression(body, coding, limit)
        size, done = 0, False
        while not done:
            step = min(max(size, _INLINE_BYTES), limit - size)
            hold.receive(step)
            size += step
            here = len(body) <= _INLINE_BYTES and size <= _INLINE_BYTES
            done = await self._threads.run(hold, stream.advance, size, here=here)
        return stream.output

    def _decode(
        self, body: memoryview, query: Sequence[tuple[str, str]], check: StreamCheck | None
    ) -> ScoreRequest | LongTable:
        """Read a body: Arrow if there is a check of it."""
        faults = Faults()
        settings = self._settings
        if check is None:
            for name, _ in query:
                faults.add(f"?{name}", "the options of a JSON request stand in its body")
            faults.check()
            return json.decode(body, max_elements=settings.max_elements)
        options = options_from_query(query, faults)
        columns = columns_from_query(query, faults)
        faults.check()
        if columns is not None:
            return long.decode(
                body, options, columns, check=check, max_elements=settings.max_elements
            )
        return arrow.decode(
            body,
            options,
            max_bytes=settings.max_body_bytes,
            max_elements=settings.max_elements,
            check=check,
        )

    async def _score(self, request: ScoreRequest, receive: Receive, deadline: float) -> Answer:
        """Await the answer; withdraw the request if the client goes away first."""
        future = self._engine.submit(
            request.prediction, request.target, request.options, deadline=deadline
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


def _encode(request: ScoreRequest, scores: Scores, format_: str) -> list[memoryview]:
    if format_ == "json":
        return [memoryview(json.encode(request, scores))]
    return arrow.encode(request, scores)
