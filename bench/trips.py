"""Count our own calls in one small request: calls, files, and returns to a file that was left.

From the ASGI call to the end of the answer, without the protocol. Properties count; comprehensions
and lambdas do not.

python bench/trips.py [list]
"""

import asyncio
import itertools
import sys
from pathlib import Path
from types import FrameType

from http_paths import ARROW, JSON
from peers import Workload, arrow_load, as_it_is
from starlette.types import Message, Scope

from loss_scoring.service.app import create_app
from loss_scoring.service.limits.body import BUFFERED
from loss_scoring.service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
SOURCES = tuple(f"{ROOT}/{name}/" for name in ("core", "service", "loss_scoring"))


def scope_of(body: bytes, content_type: str) -> Scope:
    headers = [(b"host", b"x"), (b"content-type", content_type.encode())]
    headers.append((b"content-length", b"%d" % len(body)))
    scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b""}
    return {**scope, "headers": headers, "client": ("127.0.0.1", 1), BUFFERED: True}


async def count(bodies: dict[str, tuple[bytes, str]]) -> None:
    app = create_app(Settings())
    events: asyncio.Queue[Message] = asyncio.Queue()
    started = asyncio.Event()

    async def note(_message: Message) -> None:
        started.set()

    serving = asyncio.create_task(app({"type": "lifespan"}, events.get, note))
    await events.put({"type": "lifespan.startup"})
    await started.wait()
    for name, (body, content_type) in bodies.items():

        async def receive(body: bytes = body) -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message.get("status", 200) != 200:
                raise RuntimeError(message)

        calls: list[tuple[str, str]] = []

        def profile(frame: FrameType, event: str, _argument: object, calls: list = calls) -> None:
            code = frame.f_code
            if event == "call" and code.co_filename.startswith(SOURCES) and code.co_name[0] != "<":
                file = code.co_filename.removeprefix(f"{ROOT}/").removeprefix("loss_scoring/")
                calls.append((file, code.co_qualname))

        for last in (False, False, True):  # the first fill caches
            sys.setprofile(profile if last else None)
            await app(scope_of(body, content_type), receive, send)
        sys.setprofile(None)
        stays = [file for file, _ in itertools.groupby(calls, key=lambda call: call[0])]
        files = len(set(stays))
        print(f"{name}: {len(calls)} calls in {files} files, {len(stays) - files} returns")
        if sys.argv[1:] == ["list"]:
            print(*(f"    {file} {function}" for file, function in calls), sep="\n")
    await events.put({"type": "lifespan.shutdown"})
    await serving


def main() -> None:
    request = Workload("", 8, 24, 1, 0).request()
    bodies = {
        "JSON 8 x 24": (as_it_is(request), JSON["Content-Type"]),
        "Arrow 8 x 24": (arrow_load("http://x/score", request).body, ARROW["Content-Type"]),
    }
    asyncio.run(count(bodies))


if __name__ == "__main__":
    main()
