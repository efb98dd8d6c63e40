"""What HTTP costs without any work: the apps that the service is measured against.

uvicorn bench.ceilings:app
"""

from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send


async def empty(_request: Request) -> Response:
    """Answer without reading."""
    return Response()


fastapi = FastAPI()


@fastapi.post("/")
async def awaits_body(request: Request) -> dict[str, int]:
    """Await the body, do nothing with it."""
    return {"bytes": len(await request.body())}


async def _answer(send: Send, body: bytes) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Sink:
    """Reads the body into one buffer of its announced size, the same for all requests."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        length = int(dict(scope["headers"])[b"content-length"])
        if len(self._buffer) < length:
            self._buffer = memoryview(bytearray(length))
        buffer = self._buffer
        filled, more = 0, True
        while more:
            message = await receive()
            chunk = message["body"]
            buffer[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
            more = message["more_body"]
        await _answer(send, b"")


class Echo:
    """Joins the body and sends it back."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        chunks, more = [], True
        while more:
            message = await receive()
            chunks.append(message["body"])
            more = message["more_body"]
        await _answer(send, b"".join(chunks))


app = Starlette(
    routes=[
        Route("/empty", empty, methods=["POST"]),
        Route("/sink", Sink(), methods=["POST"]),
        Route("/echo", Echo(), methods=["POST"]),
        Mount("/fastapi", fastapi),
    ]
)
