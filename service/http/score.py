"""POST /score: receive, decode, score, encode.

A plain ASGI endpoint: the body never passes through a framework's model, which would make a
Python object of every number.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from core import Scores
from service.codecs import arrow, json
from service.codecs.compression import Decompression
from service.codecs.options import options_from_query
from service.codecs.request import ScoreRequest
from service.engine import Answer, Engine
from service.errors import Faults, ServiceError
from service.http.body import Pace, receive_body
from service.http.context import Context, context_of
from service.http.negotiation import FORMATS, negotiate
from service.http.problems import problem_of
from service.settings import Settings

_T = TypeVar("_T")

_TYPES = {name: media_type.encode() for name, media_type in FORMATS.items()}
_INLINE_BYTES = 1 << 16
"""JSON below this is read and written on the event loop; a hand-off to a thread costs more."""
_SENT_AT_ONCE = 1 << 19
"""One write holds the event loop for as long as it takes to copy."""


class ScoreEndpoint:
    """The ASGI application behind ``POST /score``."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._pace = Pace(settings.body_timeout_s, settings.min_body_bytes_per_s)
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        context = context_of(scope)
        context.route = "/score"
        self._open += 1
        try:
            format_, chunks = await self._answer(scope, receive, context)
        except ServiceError as error:
            await problem_of(error, context.request_id)(scope, receive, send)
            return
        finally:
            self._open -= 1
        headers = [
            (b"content-type", _TYPES[format_]),
            (b"content-length", b"%d" % sum(map(len, chunks))),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        parts = _parts(chunks)
        for i, part in enumerate(parts, start=1):
            more = i < len(parts)
            await send({"type": "http.response.body", "body": part, "more_body": more})

    async def _answer(
        self, scope: Scope, receive: Receive, context: Context
    ) -> tuple[str, list[memoryview]]:
        """Return the format and the parts of the answer."""
        formats = negotiate(context.headers)
        context.format = formats.request
        is_json = formats.request == "json"
        settings = self._settings
        limit = settings.max_json_bytes if is_json else settings.max_body_bytes
        limit = min(limit, settings.max_body_bytes)
        body = await receive_body(context.headers, receive, limit, self._pace)
        started = time.perf_counter()
        if formats.coding != "identity":
            body = await _decompress(body, formats.coding, limit)
        here = len(body) <= _INLINE_BYTES if is_json else arrow.is_quick(body)
        try:
            request = await _run(self._decode, body, scope["query_string"], is_json, here=here)
        finally:  # a refusal took its time as well
            context.stages["decode"] = time.perf_counter() - started
        answer = self._engine.score_at_once(
            request.prediction, request.target, request.options, idle=self._open == 1
        )
        if answer is None:
            answer = await self._score(request, receive)
        context.stages["queue"], context.stages["compute"] = answer.queue_s, answer.compute_s
        started = time.perf_counter()
        if not is_json and arrow.may_be_missing(request, answer.scores):
            await _run(arrow.check_missing, request, here=request.elements <= _INLINE_BYTES)
        chunks = await _run(
            *(_encode, request, answer.scores, formats.answer),
            here=_encoded_bytes(request, formats.answer) <= _INLINE_BYTES,
        )
        context.stages["encode"] = time.perf_counter() - started
        return formats.answer, chunks

    def _decode(self, body: memoryview, query: bytes, is_json: bool) -> ScoreRequest:  # noqa: FBT001
        faults = Faults()
        settings = self._settings
        text = query.decode("ascii", "replace")
        parameters = parse_qsl(text, keep_blank_values=True) if text else []
        if is_json:
            for name, _ in parameters:
                faults.add(f"?{name}", "the options of a JSON request stand in its body")
            faults.check()
            return json.decode(body, max_elements=settings.max_elements)
        options = options_from_query(parameters, faults)
        faults.check()
        return arrow.decode(
            body,
            options,
            max_bytes=settings.max_body_bytes,
            max_elements=settings.max_elements,
        )

    async def _score(self, request: ScoreRequest, receive: Receive) -> Answer:
        """Await the answer; withdraw the request if the client goes away first."""
        future = self._engine.submit(request.prediction, request.target, request.options)
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


async def _decompress(body: memoryview, coding: str, limit: int) -> memoryview:
    stream = Decompression(body, coding, limit)
    small = len(body) <= _INLINE_BYTES and stream.advance(_INLINE_BYTES)
    if not small:  # a few bytes may become many, so what is small shows only now
        await _run(stream.advance, limit, here=False)
    return stream.output


async def _run(work: Callable[..., _T], *arguments: object, here: bool) -> _T:
    """Run work here, on the event loop, or on a thread."""
    if here:
        return work(*arguments)
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def _parts(chunks: Sequence[memoryview]) -> Sequence[memoryview]:
    """Cut what is too large for one write."""
    if len(chunks) == 1 and len(chunks[0]) <= _SENT_AT_ONCE:
        return chunks
    return [
        chunk[start : start + _SENT_AT_ONCE]
        for chunk in chunks
        for start in range(0, len(chunk), _SENT_AT_ONCE)
    ]


def _encoded_bytes(request: ScoreRequest, format_: str) -> int:
    """Estimate the JSON to be written, or the Arrow that takes as long."""
    if format_ == "arrow":
        return 2 * len(request)
    gradients = len(request.options.losses) if request.options.gradients else 0
    return 64 * len(request) + 20 * request.elements * gradients


def _encode(request: ScoreRequest, scores: Scores, format_: str) -> list[memoryview]:
    if format_ == "json":
        return [memoryview(json.encode(request, scores))]
    return arrow.encode(request, scores)
