"""The service with an eye on its event loop: GET /lag tells the longest stall since the last look.

A stall is how late a timer of 2 ms fires, in milliseconds; what other processes do on the same
CPUs counts as well.

    python bench/watched.py --port 8000
"""

import argparse
import asyncio
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from loss_scoring.service import app
from loss_scoring.service.cli.serve import serve

_TICK_S = 0.002


def watched(create_app: Callable[..., ASGIApp]) -> Callable[..., ASGIApp]:
    def create(*arguments: object) -> ASGIApp:
        app, stalls = create_app(*arguments), [0.0]
        watchers: set[asyncio.Task[None]] = set()

        async def watch() -> None:
            while True:
                due = time.perf_counter() + _TICK_S
                await asyncio.sleep(_TICK_S)
                stalls.append(time.perf_counter() - due)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope.get("path") != "/lag":
                await app(scope, receive, send)
                return
            if not watchers:
                watchers.add(asyncio.create_task(watch()))
            body = b"%.3f" % (1e3 * max(stalls))
            stalls[:] = [0.0]
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return application

    return create


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    app.create_app = watched(app.create_app)
    serve(port=port, log_level="warning")


if __name__ == "__main__":
    main()
