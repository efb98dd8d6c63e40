"""POST /score: receive, decode, score, encode.

A plain ASGI endpoint: the body never passes through a framework's model, which would make a
Python object of every number.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qsl

import pyarrow as pa
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core import Scores
from service.codecs import arrow, json
from service.codecs.options import options_from_query
from service.codecs.request import ScoreRequest
from service.engine import Answer, Engine
from service.errors import Faults
from service.http.body import receive_body
from service.http.context import context_of
from service.http.negotiation import FORMATS, negotiate
from service.settings import Settings

_T = TypeVar("_T")

_INLINE_BYTES = 1 << 16
"""Below this, a hand-off to a thread costs more than it spares the event loop."""


class ScoreEndpoint:
    """The ASGI application behind ``POST /score``."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        context = context_of(scope)
        context.route = scope["path"]
        headers = Headers(scope=scope)
        formats = negotiate(headers)
        context.format = formats.request
        query = scope["query_string"].decode("ascii", "replace")
        is_json = formats.request == "json"
        settings = self._settings
        limit = settings.max_json_bytes if is_json else settings.max_body_bytes
        body = await receive_body(headers, receive, min(limit, settings.max_body_bytes))
        with context.stage("decode"):
            request = await _apart(len(body), lambda: self._decode(body, query, is_json=is_json))
        answer = await self._score(request, receive)
        context.stages.update(queue=answer.queue_s, compute=answer.compute_s)
        with context.stage("encode"):
            size = request.elements * 8 * (1 + len(answer.scores.gradients)) + 64 * len(request)
            content = await _apart(size, lambda: _encode(request, answer.scores, formats.answer))
        response = Response(content, media_type=FORMATS[formats.answer])
        await response(scope, receive, send)

    def _decode(self, body: memoryview, query: str, *, is_json: bool) -> ScoreRequest:
        faults = Faults()
        settings = self._settings
        parameters = parse_qsl(query, keep_blank_values=True)
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


async def _apart(size: int, work: Callable[[], _T]) -> _T:
    """Run work on bytes here when it is small, else on a thread."""
    if size <= _INLINE_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _encode(request: ScoreRequest, scores: Scores, format_: str) -> bytes | memoryview:
    if format_ == "json":
        return json.encode(request, scores)
    encoded: pa.Buffer = arrow.encode(request, scores)
    return memoryview(encoded)
