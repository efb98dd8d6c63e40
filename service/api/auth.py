"""Lets only requests with a key pass (RFC 6750), before anything of their body is read."""

from starlette.types import ASGIApp, Receive, Scope, Send

from loss_scoring.service.api.context import context_of
from loss_scoring.service.api.keys import Keys
from loss_scoring.service.api.problems import problem_of
from loss_scoring.service.errors import UnauthorizedError, UnknownKeyError

PROBES = frozenset({"/livez", "/readyz", "/metrics"})


class KeyMiddleware:
    """Answers 401 unless the path is open or the key is known; needs the context around it.

    OPTIONS needs no key: browsers send none when they ask whether a page may call.
    """

    def __init__(self, app: ASGIApp, keys: Keys, open_paths: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        asks = scope["type"] == "http" and scope["method"] != "OPTIONS"
        if asks and scope["path"] not in self._open_paths:
            context = context_of(scope)
            given = context.headers.get(b"authorization", b"")
            holder = self._keys.holder(given)
            if holder is None:
                error = UnknownKeyError if given else UnauthorizedError
                refusal = error("send Authorization: Bearer and a key of this server")
                context.reason = refusal.reason
                await problem_of(refusal, context.request_id)(scope, receive, send)
                return
            context.client = holder  # behind a proxy all come from one address
        await self._app(scope, receive, send)
