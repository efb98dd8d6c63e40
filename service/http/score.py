"""POST /score: receive, decode, score, encode.

A plain ASGI endpoint: the body never passes through a framework's model, which would make a
Python object of every number.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from core import Scores
from service.codecs import arrow, json
from service.codecs.options import options_from_query
from service.codecs.request import ScoreRequest
from service.engine import Answer, Engine
from service.errors import Faults, ServiceError
from service.http.body import receive_body
from service.http.context import Context, context_of
from service.http.negotiation import FORMATS, Formats, negotiate
from service.http.problems import problem_of
from service.settings import Settings

_T = TypeVar("_T")

_TYPES = {name: media_type.encode() for name, media_type in FORMATS.items()}
_INLINE_BYTES = 1 << 16
"""Below this, a hand-off to a thread costs more than it spares the event loop."""
_SENT_AT_ONCE = 1 << 19
"""One write holds the event loop for as long as it takes to copy."""
_ARROW_IS_CHEAPER = 32
"""Times as cheap as JSON at worst, where every series has one element."""


class ScoreEndpoint:
    """The ASGI application behind ``POST /score``."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        context = context_of(scope)
        context.route = "/score"
        try:
            format_, chunks = await self._answer(scope, receive, context)
        except ServiceError as error:
            await problem_of(error, context.request_id)(scope, receive, send)
            return
        size = sum(map(len, chunks))
        headers = [
            (b"content-type", _TYPES[format_]),
            (b"content-length", str(size).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in chunks:
            for start in range(0, len(chunk), _SENT_AT_ONCE):
                part = chunk[start : start + _SENT_AT_ONCE]
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _answer(
        self, scope: Scope, receive: Receive, context: Context
    ) -> tuple[str, list[memoryview]]:
        """Return the format and the parts of the answer."""
        headers = Headers(scope=scope)
        formats = negotiate(headers)
        context.format = formats.request
        query = scope["query_string"].decode("ascii", "replace")
        is_json = formats.request == "json"
        settings = self._settings
        limit = settings.max_json_bytes if is_json else settings.max_body_bytes
        body = await receive_body(headers, receive, min(limit, settings.max_body_bytes))
        with context.stage("decode"):
            work = len(body) if is_json else len(body) // _ARROW_IS_CHEAPER
            request = await _apart(work, lambda: self._decode(body, query, is_json=is_json))
        answer = await self._score(request, receive)
        context.stages.update(queue=answer.queue_s, compute=answer.compute_s)
        with context.stage("encode"):
            work = 64 * len(request) // _ARROW_IS_CHEAPER
            if formats.answer == "json":
                work = 64 * len(request) + 20 * request.elements * len(answer.scores.gradients)
            chunks = await _apart(work, lambda: _encode(request, answer.scores, formats))
        return formats.answer, chunks

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
        if future.done():
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


async def _apart(size: int, work: Callable[[], _T]) -> _T:
    """Run work on some bytes of JSON here when they are few, else on a thread."""
    if size <= _INLINE_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _encode(request: ScoreRequest, scores: Scores, formats: Formats) -> list[memoryview]:
    if formats.request == "arrow":
        arrow.check_missing(request, scores)
    if formats.answer == "json":
        return [memoryview(json.encode(request, scores))]
    return arrow.encode(request, scores)
